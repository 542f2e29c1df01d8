"""How much memory this process may still take."""

from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


def available_bytes() -> int:
    """Free memory of the machine, further limited by the container's or the Slurm job's cgroup (v2 or v1)."""
    free = _machine_available()
    for folder in _own_cgroups():
        limit = _number(folder / "memory.max") or _number(folder / "memory.limit_in_bytes")
        used = _number(folder / "memory.current") or _number(folder / "memory.usage_in_bytes")
        if limit is not None and used is not None:
            free = min(free, max(0, limit - used))
    return free


def _machine_available() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/meminfo has no MemAvailable line")


def _own_cgroups() -> list[Path]:
    """This process's cgroup folders, from its own up to the root of what it can see."""
    folders = [CGROUPS, CGROUPS / "memory"]
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "memory"):
            root = CGROUPS / controllers
            own = root / path.lstrip("/")
            folders += [own, *(parent for parent in own.parents if parent.is_relative_to(root))]
    return folders


def _number(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None
