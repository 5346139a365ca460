"""A hub on the loopback interface that serves models and datasets from a folder: KIND/OWNER/NAME/files."""

import hashlib
import http.server
import json
import re
import threading
from contextlib import contextmanager
from functools import partial
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(http.server.BaseHTTPRequestHandler):
    def __init__(self, folder, *args):
        self.folder = folder
        super().__init__(*args)

    def do_GET(self):
        path = unquote(urlsplit(self.path).path)
        asked = re.fullmatch(
            r"/api/(models|datasets)/([^/]+/[^/]+)(?:/(revision|tree|paths-info)/([^/]+)(?:/(.*))?)?", path
        )
        if asked:
            kind, name, what, _, below = asked.groups()
            return self.tell(kind, name, what, below)
        asked = re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/[^/]+/(.+)", path)
        if not asked:
            return self.refuse("RepoNotFound")
        file = self.folder / ("datasets" if asked[1] else "models") / asked[2] / asked[3]
        if not file.is_file():
            return self.refuse("EntryNotFound" if file.parents[asked[3].count("/")].is_dir() else "RepoNotFound")
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
        info = {"id": name, "sha": COMMIT, "private": False, "gated": False, "disabled": False, "tags": [], "downloads": 0, "likes": 0, "siblings": [{"rfilename": f} for f in files]}  # fmt: skip
        self.answer(json.dumps(info).encode(), "application/json")

    @staticmethod
    def parents(file):
        parts = file.split("/")[:-1]
        return ["/".join(parts[: n + 1]) for n in range(len(parts))]

    def answer(self, body, kind):
        self.send_response(200)
        for name, value in (("Content-Type", kind), ("Content-Length", len(body)), ("X-Repo-Commit", COMMIT), ("ETag", f'"{hashlib.sha1(body).hexdigest()}"')):  # fmt: skip
            self.send_header(name, str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, code):
        self.send_response(404)
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
