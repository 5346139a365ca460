"""Give a command its own GPUs: lease free ones, hide all others from it, then become the command.

Example:
  python scripts/with_gpus.py --asked 2 --granted 2 -- accelerate launch --num_processes 2 scripts/train.py ...

Snakemake counts GPUs but names none, so that two jobs on one machine would both use the first. Here each device
has a lock (flock), taken by the process that becomes the command: the kernel frees it when the command, and any
child that inherited it, has ended, however it ended. A command gets all its devices or waits. Commands that could
use the same device are served one after the other, so that there is no starvation and no deadlock.

The devices are those of CUDA_VISIBLE_DEVICES, HIP_VISIBLE_DEVICES or ROCR_VISIBLE_DEVICES, else all that the driver
lists. The command gets the first free ones of that list. On NVIDIA an index is that of nvidia-smi
(CUDA_DEVICE_ORDER=PCI_BUS_ID unless set), and names the same lock as the device's UUID. With MIG, list the instances.

Locks are in /tmp/croco-gpus, shared by all users and checkouts of the machine; CROCO_GPU_LOCKS names another local
folder. Inside a SLURM job they are in a subfolder for that job. So jobs to which SLURM gave different devices never
wait for each other, although each may call its device 0, while local runs in one allocation share its devices.

The exit code is the command's, 1 if the devices are not available, 2 for wrong options, and 126 or 127 if the command
cannot be started.
"""

import argparse
import contextlib
import fcntl
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

CUDA, HIP, ROCR = "CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"
TOKEN = re.compile(r"[0-9]{1,4}|(gpu|mig)-[0-9a-z/-]{1,100}", re.ASCII | re.IGNORECASE)
POLL, FIRST_REMINDER, REMINDER = 0.1, 1, 60  # seconds


def main():
    args = parse_arguments()
    granted = args.asked if args.granted is None else args.granted
    if granted < args.asked:
        fail(
            f"GPUs asked {args.asked}, granted {granted}: Snakemake's limit is lower",
            f"start Snakemake with --resources gpu=N, N at least {args.asked}, or ask for fewer in the config",
        )
    # HIP takes an empty value for none set, CUDA for no device.
    os.environ.update(lease_devices(args.asked) if args.asked else {CUDA: "", HIP: "-1"})
    os.environ["CROCO_GPUS"] = str(args.asked)  # read for the job's manifest
    become(args.command)


def parse_arguments():
    parser = argparse.ArgumentParser(
        usage="%(prog)s --asked N [--granted N] -- COMMAND ...",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--asked", type=natural, required=True, metavar="N", help="GPUs to lease; 0 hides all")
    parser.add_argument("--granted", type=natural, metavar="N", help="what Snakemake's scheduler gave (default: asked)")
    parser.add_argument("command", nargs="+", metavar="COMMAND", help="what to run, with its arguments")
    return parser.parse_args()


def natural(text):
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text} is not a whole number of GPUs, 0 or more")
    return int(text)


def fail(problem, remedy):
    sys.exit(f"error: {problem}\n  Remedy: {remedy}")


def lease_devices(count):
    """Leases ``count`` visible devices; returns the environment variables that show only these."""
    nvidia = list_nvidia_devices()
    names = nvidia or list_amd_devices()
    # NVIDIA's driver reads but one of the three, and HIP prefers its own to CUDA's.
    variables = [CUDA] if nvidia else [HIP, CUDA, ROCR]
    given = [name for name in variables if os.environ.get(name)] or [name for name in variables if name in os.environ]
    source = given[0] if given else None
    # ROCm filters twice: ROCR_VISIBLE_DEVICES first, then HIP's or CUDA's variable (HIP's, where both are set) by
    # position in what ROCR left. So the last filter is narrowed and ROCR stays as it is, unless it is the only one.
    # HIP's and CUDA's are kept equal, since PyTorch and vLLM on ROCm do not agree which of them rules.
    if source in (CUDA, HIP) and ROCR in given:
        names = renumber(choose(os.environ[ROCR], names), names)
    devices = choose(os.environ[source] if source else ",".join(filter(str.isdigit, names)), names)
    if len(devices) < count:
        where = f"{source}={os.environ[source]}" if source else "this machine"
        fail(
            f"{where}: GPUs asked {count}, visible {len(devices)}",
            f"list {count} or more devices in {source or CUDA}, start on a machine that has them, or ask for fewer in "
            "the config",
        )
    leased = ",".join(take_locks(devices, count))
    order = {"CUDA_DEVICE_ORDER": os.environ.get("CUDA_DEVICE_ORDER", "PCI_BUS_ID")} if nvidia else {}
    return {ROCR: leased} if source == ROCR else {CUDA: leased, HIP: leased, **order}


def list_nvidia_devices():
    """{index or UUID: UUID} in the order of nvidia-smi; empty where there is no nvidia-smi."""
    query = ["nvidia-smi", "--query-gpu=index,uuid", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=True)
    except (FileNotFoundError, PermissionError):  # the latter also where a folder of PATH is closed to us
        return {}
    except (OSError, subprocess.SubprocessError) as error:
        # Without UUIDs this job could name a device's lock differently from another job, and both would get the device.
        said = " ".join(f"{getattr(error, 'stdout', '') or ''} {getattr(error, 'stderr', '') or ''}".split())
        fail(f"{' '.join(query)}: {error} {said}".rstrip(), "repair the NVIDIA driver, or ask for 0 GPUs in the config")
    found = [re.split(r",\s*", line.strip().lower()) for line in done.stdout.splitlines() if line.strip()]
    return {key: uuid for index, uuid in found for key in (index, uuid)}


def list_amd_devices(root="/"):
    """{index or UUID: render node} of the GPUs of the kernel's KFD that this process may open, in its order."""
    names = {}
    nodes = Path(root, "sys/class/kfd/kfd/topology/nodes").glob("[0-9]*")
    for node in sorted(nodes, key=lambda node: int(node.name)):
        try:
            facts = dict(re.findall(r"^(\w+) (\d+)$", (node / "properties").read_text(), re.MULTILINE))
        except OSError:  # not this container's or job's
            continue
        render = f"renderD{facts.get('drm_render_minor')}"
        if facts.get("simd_count", "0") != "0" and os.access(Path(root, "dev/dri", render), os.R_OK | os.W_OK):
            names[str(sum(map(str.isdigit, names)))] = render
            if int(facts.get("unique_id", 0)):
                names[f"gpu-{int(facts['unique_id']):016x}"] = render
    return names


def choose(text, names):
    """{token: name of its lock} of a list of devices, up to its first invalid token, as the drivers read it.

    ``names`` maps the indices and UUIDs that exist to names; empty, every well-formed token is its own name. A UUID may
    be abbreviated. Of two tokens for one device the first counts.
    """
    devices = {}
    for token in (part.strip() for part in text.split(",")):
        if not TOKEN.fullmatch(token):
            break
        key = token.lower()
        abbreviated = key.startswith("gpu-")
        matches = [name for known, name in names.items() if known == key or (abbreviated and known.startswith(key))]
        if names and not matches and not key.startswith("mig-"):
            break
        name = matches[0] if matches else key
        if name not in devices.values():
            devices[token] = name
    return devices


def renumber(devices, names):
    """{index or UUID: name} as seen by what comes after a filter that left ``devices``, {token: name}."""
    left = list(devices.values())
    uuids = {key: name for key, name in names.items() if name in left and not key.isdigit()}
    return {str(position): name for position, name in enumerate(left)} | uuids


def take_locks(devices, count):
    """Waits for ``count`` of ``devices`` {token: name}; returns their tokens. The command inherits the locks."""
    held, served, done = {}, [], threading.Event()

    def remind():
        delay = FIRST_REMINDER
        while not done.wait(delay):
            state = f"{len(held)} held so far" if len(served) == len(devices) else "another job is served first"
            text = (
                f"with_gpus: waiting for {count} of the GPUs {','.join(devices)}: {state} (lslocks shows who has them)"
            )
            os.write(2, f"{text}\n".encode())  # sys.stderr's lock, held by a thread at exit, would abort Python
            delay = REMINDER

    threading.Thread(target=remind, daemon=True).start()
    folder = open_folder()
    # Each device has a second lock, its turn. A job takes the turns of all its devices, always in the same order, and
    # then is the only one to collect these devices: there is no deadlock and no starvation. Jobs with other devices
    # pass, and the kernel queues jobs that wait for a turn.
    for name in sorted(devices.values()):
        served.append(take_lock(folder, f"turn-{name}", wait=True))
    while True:
        for token, name in devices.items():
            if token not in held and len(held) < count:
                descriptor = take_lock(folder, f"gpu-{name}")
                if descriptor is not None:
                    held[token] = descriptor
        if len(held) == count:
            break
        time.sleep(POLL)
    done.set()
    for descriptor in held.values():
        os.set_inheritable(descriptor, True)
    for descriptor in served:
        os.close(descriptor)
    return [token for token in devices if token in held]


def open_folder():
    """Descriptor of the folder of locks, made where it is missing so that every user can add to it."""
    path = os.environ.get("CROCO_GPU_LOCKS", "/tmp/croco-gpus")
    job = re.sub(r"[^0-9A-Za-z]", "_", os.environ.get("SLURM_JOB_ID", ""))
    folder, mask = None, os.umask(0)
    try:
        for part in [path, f"slurm-{job}"] if job else [path]:
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, 0o1777, dir_fd=folder)
            folder = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
    except OSError as error:
        refuse_folder(error)
    finally:
        os.umask(mask)
    return folder


def take_lock(folder, name, wait=False):
    """Descriptor of an exclusive lock, or None where another process has it and we do not ``wait``."""
    name = name.replace("/", "_")  # of MIG instances
    while True:
        descriptor = None
        try:
            descriptor = open_lock(folder, name)
            fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            # A cleaner of /tmp may have removed the file in the meantime: another process would then lock a new one.
            if os.path.samestat(os.fstat(descriptor), os.stat(name, dir_fd=folder, follow_symlinks=False)):
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            return None
        except FileNotFoundError:
            pass
        except OSError as error:
            refuse_folder(error)
        if descriptor is not None:
            os.close(descriptor)


def open_lock(folder, name):
    # Reading is enough to lock, and lets users lock each other's files. O_CREAT only for a new file: in a folder like
    # /tmp the kernel (fs.protected_regular) refuses it for another user's. No links: they could lead anywhere.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        return os.open(name, flags, dir_fd=folder)
    except FileNotFoundError:
        try:
            return os.open(name, flags | os.O_CREAT | os.O_EXCL, 0o444, dir_fd=folder)
        except FileExistsError:
            return os.open(name, flags, dir_fd=folder)


def refuse_folder(error):
    fail(
        f"{os.environ.get('CROCO_GPU_LOCKS', '/tmp/croco-gpus')}: cannot lock in this folder ({error})",
        "set CROCO_GPU_LOCKS to a folder on a local disk that you may write to; it must be the same for all jobs",
    )


def become(command):
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, and a command inherits that
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        print(f"error: {command[0]}: cannot start the command ({error.strerror})", file=sys.stderr)
        print("  Remedy: check its name, PATH and whether the environment is active", file=sys.stderr)
        sys.exit(127 if isinstance(error, FileNotFoundError) else 126)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
