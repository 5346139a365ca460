"""A hub on the loopback interface that serves models and datasets from a folder: KIND/OWNER/NAME/files.

It has one revision, main. A repository with a file .gated is gated, and nobody has access to it; to one with a file
.busy there are too many requests.
"""

import hashlib
import http.server
import json
import re
import threading
from contextlib import contextmanager
from functools import partial
from urllib.parse import parse_qs, unquote, urlsplit

from huggingface_hub import ModelCard

COMMIT = "0123456789abcdef0123456789abcdef01234567"
GATE, BUSY = ".gated", ".busy"


class Hub(http.server.BaseHTTPRequestHandler):
    def __init__(self, folder, *args):
        self.folder = folder
        super().__init__(*args)

    def do_GET(self):
        path = unquote(urlsplit(self.path).path)
        gated = re.fullmatch(r"/api/(models|datasets)/([^/]+/[^/]+)/auth-check", path)
        if gated:
            return self.refuse("GatedRepo", 403)
        asked = re.fullmatch(
            r"/api/(models|datasets)/([^/]+/[^/]+)(?:/(revision|tree|paths-info)/([^/]+)(?:/(.*))?)?", path
        )
        if asked:
            kind, name, what, revision, below = asked.groups()
            if (self.folder / kind / name).is_dir() and revision not in (None, "main", COMMIT):
                return self.refuse("RevisionNotFound")
            return self.tell(kind, name, what, below)
        asked = re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        if not asked:
            return self.refuse("RepoNotFound")
        root = self.folder / ("datasets" if asked[1] else "models") / asked[2]
        file = root / asked[4]
        if (root / GATE).exists():
            return self.refuse("GatedRepo", 403)
        if root.is_dir() and asked[3] not in ("main", COMMIT):
            return self.refuse("RevisionNotFound")
        if (root / BUSY).exists():
            return self.refuse("TooManyRequests", 429)
        if not file.is_file():
            return self.refuse("EntryNotFound" if root.is_dir() else "RepoNotFound")
        self.answer(file.read_bytes(), "application/octet-stream")

    do_HEAD = do_GET  # noqa: N815 (named by http.server)
    do_POST = do_GET  # noqa: N815

    def tell(self, kind, name, what, below):
        root = self.folder / kind / name
        if not root.is_dir():
            return self.refuse("RepoNotFound")
        files = sorted(file.relative_to(root).as_posix() for file in root.rglob("*") if file.is_file())
        folders = sorted({parent for file in files for parent in self.parents(file)})
        if what in ("tree", "paths-info"):
            entries = [{"type": "file", "path": f, "size": (root / f).stat().st_size, "oid": hashlib.sha1(f.encode()).hexdigest()} for f in files]  # fmt: skip
            entries += [{"type": "directory", "path": f, "oid": hashlib.sha1(f.encode()).hexdigest()} for f in folders]
            if what == "tree":
                entries = [e for e in entries if not below or e["path"].startswith(f"{below}/")]
            else:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
                paths = json.loads(body)["paths"] if body.startswith("{") else parse_qs(body).get("paths", [])
                entries = [e for e in entries if e["path"] in paths]
            return self.answer(json.dumps(entries).encode(), "application/json")
        info = {"id": name, "sha": COMMIT, "private": False, "gated": "manual" if (root / GATE).exists() else False, "disabled": False, "tags": [], "downloads": 0, "likes": 0, "siblings": [{"rfilename": f} for f in files]}  # fmt: skip
        if (root / "README.md").is_file():
            info["cardData"] = ModelCard.load(root / "README.md").data.to_dict()
        self.answer(json.dumps(info).encode(), "application/json")

    @staticmethod
    def parents(file):
        parts = file.split("/")[:-1]
        return ["/".join(parts[: n + 1]) for n in range(len(parts))]

    def answer(self, body, kind):
        part = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if part:
            whole, start = body, int(part[1])
            body = whole[start : int(part[2]) + 1 if part[2] else None]
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{start + len(body) - 1}/{len(whole)}")
        else:
            self.send_response(200)
        for name, value in (("Content-Type", kind), ("Content-Length", len(body)), ("X-Repo-Commit", COMMIT), ("ETag", f'"{hashlib.sha1(body).hexdigest()}"')):  # fmt: skip
            self.send_header(name, str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, code, status=404):
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@contextmanager
def serving(folder):
    """The hub's address while the block runs."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Hub, folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
