"""The machine the numbers are from."""

import os
import platform
from pathlib import Path


def facts(directory: Path) -> dict[str, str]:
    """Cores, memory, kernel, Python, and the file system all servers keep their data on."""
    return {
        "processor": f"{os.cpu_count()} × {_processor()}",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        "file system": file_system(directory),
    }


def load() -> float:
    """Processes that wanted to run, averaged over the last minute."""
    return os.getloadavg()[0]


def busy_seconds() -> float:
    """CPU time that all processors have spent since boot, stolen by a hypervisor included."""
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def file_system(path: Path) -> str:
    """Type of the file system a path lies on."""
    best, kind = Path("/"), "unknown"
    for line in Path("/proc/mounts").read_text().splitlines():
        _, mounted, type_, *_ = line.split()
        mount = Path(mounted.encode().decode("unicode_escape"))
        if path.resolve().is_relative_to(mount) and mount.is_relative_to(best):
            best, kind = mount, type_
    return kind


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
