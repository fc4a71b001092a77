"""Errors of the system and of libraries in one line: what happened, where, and what to do.

Libraries are recognised by the names of their modules, so that describing an error imports nothing.
"""

import errno
import re
import traceback
from collections.abc import Iterator
from pathlib import Path

from smpo.core.errors import SmpoError
from smpo.core.signals import GO_ON

LONGEST = 600  # characters of another library's message that are shown
AGAIN = f"then {GO_ON}"
BY_NUMBER = {
    errno.ENOSPC: ("the disk is full", f"free some space, {AGAIN}"),
    errno.EDQUOT: ("your disk quota is used up", f"free some space, {AGAIN}"),
    errno.EROFS: ("the file system is read-only", "choose another place, such as paths.workdir=..."),
    errno.EACCES: ("permission denied", "change its permissions or choose another path"),
    errno.EPERM: ("operation not permitted", "change its permissions or choose another path"),
    errno.ENOENT: ("does not exist", "correct the path"),
    errno.ENOTDIR: ("a part of this path is a file, not a folder", "correct the path or move the file away"),
    errno.EISDIR: ("is a folder, a file is needed", "correct the path"),
    errno.EEXIST: ("is there already, and is no folder", "move it away or choose another path"),
    errno.ENOTEMPTY: ("the folder is not empty", "another process may write there; end it or choose another path"),
    errno.ENAMETOOLONG: ("the name is too long", "choose a shorter one"),
    errno.ELOOP: ("links lead back to themselves", "correct the path"),
    errno.EMFILE: ("too many open files", f"raise the limit (`ulimit -n 65536`) or use fewer workers, {AGAIN}"),
    errno.ENFILE: ("too many open files on this machine", f"close other programs, {AGAIN}"),
    errno.ENOMEM: ("no memory is left", "lower batch sizes or workers"),
    errno.EFBIG: ("the file is too large for this file system", "choose another place"),
    errno.EIO: ("the disk cannot be read or written", f"check the disk, {AGAIN}"),
    errno.ESTALE: ("the network file system has lost the file", f"check its mount, {AGAIN}"),
    errno.ETXTBSY: ("the file is in use", f"end the program that uses it, {AGAIN}"),
    errno.EAGAIN: ("the system has no resources left", f"lower the number of workers, {AGAIN}"),
    errno.ECONNREFUSED: ("the connection was refused", f"check the network or the other processes, {AGAIN}"),
    errno.ECONNRESET: ("the connection was lost", f"check the network or the other processes, {AGAIN}"),
    errno.ETIMEDOUT: ("the connection timed out", f"check the network, {AGAIN}"),
    errno.ENETUNREACH: ("the network cannot be reached", f"check it, or use local folders, {AGAIN}"),
    errno.EADDRINUSE: ("the port is taken", "choose another one (MASTER_PORT)"),
}
LESS_MEMORY = (
    "lower training.micro_batch_size (or the stage's batch_size), set training.gradient_checkpointing=true, and see "
    "`smpo cost`"
)
MEMORY = re.compile(r"out of memory|can't allocate memory|DefaultCPUAllocator|CU(DA|DNN|BLAS)_STATUS_ALLOC_FAILED"
                    r"|bad allocation|Unable to allocate", re.IGNORECASE)
DEVICE = re.compile(r"no NVIDIA driver|CUDA (driver|error|initialization)|no kernel image|invalid device ordinal"
                    r"|device string|HIP error|not compiled with CUDA|Torch not compiled|No CUDA GPUs"
                    r"|not linked with support|No module named 'torch\.[a-z]+'", re.IGNORECASE)
PEERS = re.compile(r"Connection (closed by peer|reset by peer|refused)|NCCL|ProcessGroup|Broken pipe|timed out waiting"
                   r"|gloo|TCPStore|DistStore|DistNetwork", re.IGNORECASE)
WORKER = re.compile(r"DataLoader worker .*(killed by signal|exited unexpectedly)|unable to (open|write|mmap) .*shm"
                    r"|A process in the process pool was terminated abruptly", re.IGNORECASE)
DAMAGED = (("safetensors", "SafetensorError"), ("pyarrow", "Arrow"), ("json.decoder", "JSONDecodeError"),
           ("_pickle", "UnpicklingError"), ("pickle", "UnpicklingError"), ("zipfile", "BadZipFile"), ("zlib", "error"),
           ("zstandard", "ZstdError"), ("PIL", "UnidentifiedImageError"))
NETWORK = ("huggingface_hub", "requests", "urllib3", "httpx", "httpcore", "httpx2", "httpcore2", "urllib", "socket")
EXTRAS = {"datasets": "'smpo[hf]'", "bitsandbytes": "'smpo[8bit]'"}
PARSERS = re.compile(r"[/\\](json|yaml|pyarrow|safetensors|PIL)[/\\]")
FILES = (".safetensors", ".json", ".jsonl", ".parquet", ".bin", ".pt", ".ckpt", ".npy", ".arrow", ".yaml", ".csv")
FORWARDED = re.compile(r"^Caught (\w+) in .*worker process|^Caught (\w+) in replica")


def described(error: BaseException) -> str | None:
    """One line for an error that the user or the system caused; None for an error of this package."""
    if isinstance(error, SmpoError):
        return " ".join(_own_message(error).splitlines())
    for describe in (_memory, _system, _device, _package, _workers, _damaged, _network):
        line = describe(error)
        if line is not None:
            return line
    return None


def _memory(error: BaseException) -> str | None:
    names = {kind.__name__ for kind in type(error).__mro__}
    if isinstance(error, MemoryError) or "OutOfMemoryError" in names:
        where = "the GPU's memory is full" if "OutOfMemoryError" in names else "no memory is left"
        return f"{where}; {LESS_MEMORY}"
    if isinstance(error, RuntimeError) and MEMORY.search(str(error)):
        return f"no memory is left ({_first_line(_own_message(error))}); {LESS_MEMORY}"
    return None


def _system(error: BaseException) -> str | None:
    number = getattr(error, "errno", None) if isinstance(error, OSError) else None
    text = _own_message(error)
    if number is None and (match := re.search(r"\(?\b(?:os error|Errno) (\d+)\b", text)):  # of Rust, or of a worker
        number = int(match[1])
    if number not in BY_NUMBER:
        return None if number is None else f"{_path_of(error)}{_first_line(text)}"
    what, way_out = BY_NUMBER[number]
    return f"{_path_of(error)}{what}; {way_out}"


def _package(error: BaseException) -> str | None:
    if not isinstance(error, ImportError) or (error.name or "").split(".")[0] == "smpo":
        return None
    if not isinstance(error, ModuleNotFoundError) or not error.name:
        return f"a package cannot be used ({_first_line(str(error))}); reinstall it"
    package = error.name.split(".")[0]
    return f"the package {package} is needed and not installed; pip install {EXTRAS.get(package, package)}"


def _device(error: BaseException) -> str | None:
    kinds = RuntimeError | AssertionError | ModuleNotFoundError  # the last comes from torch.hpu and the like
    if not isinstance(error, kinds) or not DEVICE.search(str(error)):
        return None
    return f"the device cannot be used ({_first_line(str(error))}); see the driver, CUDA_VISIBLE_DEVICES, `device`"


def _workers(error: BaseException) -> str | None:
    text = f"{type(error).__name__}: {error}"
    if WORKER.search(text):
        return f"a worker process was killed, mostly for want of memory or /dev/shm; use fewer workers or jobs, {AGAIN}"
    if isinstance(error, RuntimeError) and PEERS.search(text):
        return f"another process of this run has ended or cannot be reached; see its own message, {AGAIN}"
    return None


def _network(error: BaseException) -> str | None:
    modules = {kind.__module__.split(".")[0] for kind in type(error).__mro__}
    if modules.isdisjoint(NETWORK):
        if isinstance(error, OSError) and error.errno is None:  # such as transformers' "... is not a local folder ..."
            return _first_line(str(error)) or None
        return None
    return f"{_first_line(str(error))}; check the name, the network and your access, or use a local folder"


def _damaged(error: BaseException) -> str | None:
    known = any(kind.__module__.startswith(module) and kind.__name__.startswith(name)
                for kind in type(error).__mro__ for module, name in DAMAGED)
    frames = traceback.extract_tb(error.__traceback__)
    parsing = bool(frames) and bool(PARSERS.search(frames[-1].filename))
    if not known and not isinstance(error, UnicodeDecodeError) and not (parsing and isinstance(error, RecursionError)):
        return None
    return (f"{_path_of(error)}the file is damaged or is not what its name says ({_first_line(_own_message(error))}); "
            f"get it again, or delete what smpo made of it and {GO_ON}")


def _own_message(error: BaseException) -> str:
    """The message of an error; its last line where PyTorch passed on a worker's error with the traceback."""
    text = str(error)
    if FORWARDED.match(text):
        last = next((line for line in reversed(text.splitlines()) if line.strip()), text)
        return re.sub(r"^[\w.]+(Error|Exception): ", "", last.strip())
    return text


def _path_of(error: BaseException) -> str:
    """The path that an error concerns and a colon, from the error or from the nearest call; empty if there is none."""
    names = [name for name in (getattr(error, "filename", None), getattr(error, "filename2", None)) if name is not None]
    if names:
        return f"{' -> '.join(_text(name) for name in dict.fromkeys(names))}: "
    if match := re.search(r"(?:Errno \d+\] [^:]*|detail[^']*): '([^']+)'", str(error)):
        return f"{match[1]}: "
    return next((f"{path}: " for path in _paths_in_calls(error)), "")


def _paths_in_calls(error: BaseException) -> Iterator[str]:
    """Paths in the local variables of the failed calls, innermost first: errors of parsers name no file."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    for frame in reversed(frames):
        for value in frame.f_locals.values():
            if isinstance(value, str | Path) and len(str(value)) < LONGEST and str(value).endswith(FILES):
                yield str(value)


def _text(name: object) -> str:
    text = name.decode(errors="backslashreplace") if isinstance(name, bytes) else str(name)
    return text if len(text) <= LONGEST else f"{text[:80]}..."


def _first_line(text: str) -> str:
    """A message in one line of at most LONGEST characters."""
    squeezed = " ".join(text.split())
    return squeezed if len(squeezed) <= LONGEST else f"{squeezed[:LONGEST]}..."
