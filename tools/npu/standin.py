"""Builds the stand-in for CANN that the installed torch_npu needs: every function it asks for."""

import importlib.util
import platform
import re
import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).parent
CUDA_TORCH = "libcuda_torch.so"
"""To be preloaded where PyTorch is a CUDA build."""

# What torch_npu looks up by name when it runs, which therefore is not among its undefined symbols.
_LOOKED_UP = {
    "HcclCommInitRootInfoConfig",
    "HcclGetRootInfo",
    "aclSetCompileopt",
    "aclrtDestroyStreamForce",
    "aclrtSetDeviceSatMode",
    "aclrtSetOpExecuteTimeOut",
    "aclrtSetOpWaitTimeout",
    "aclrtSetStreamOverflowSwitch",
}
_OTHERS = re.compile(r"_?Py|_ITM|__gmon|__cxa|__tls")


def build(out: Path, without: frozenset[str] = frozenset()) -> None:
    """Compile the libraries into `out`.

    Args:
        out: folder for LD_LIBRARY_PATH.
        without: names of aclnn kernels that this CANN lacks.
    """
    out.mkdir(parents=True, exist_ok=True)
    targets, libraries, undefined = _needed()
    source = (HERE / "cann.cpp").read_text()
    written = set(re.findall(r"\b((?:acl|Hccl|standin)\w+)\(", source))
    functions = [
        f'extern "C" long f{i}() __asm__("{name}"); extern "C" long f{i}() {{ return 0; }}'
        for i, name in enumerate(sorted((undefined | _LOOKED_UP) - written))
    ]
    (out / "rest.cpp").write_text("\n".join(functions) + "\n")
    (out / "kernels.cpp").write_text("\n".join(_kernels(targets, without)) + "\n")
    library = ("g++", "-shared", "-fPIC", "-w")
    _sh(
        *library, "-O1", "-Wl,-soname,libascendcl.so", "-o", out / "libascendcl.so", HERE / "cann.cpp", out / "rest.cpp"
    )
    _sh(*library, "-Wl,-soname,libopapi.so", "-o", out / "libopapi.so", out / "kernels.cpp", out / "libascendcl.so")
    _sh(*library, "-O1", "-o", out / CUDA_TORCH, HERE / "cuda_torch.cpp")
    (out / "empty.cpp").write_text("")
    for name in libraries - {"libascendcl.so"}:
        _sh(
            *library,
            "-Wl,--no-as-needed",
            f"-Wl,-soname,{name}",
            "-o",
            out / name,
            out / "empty.cpp",
            out / "libascendcl.so",
        )


def _kernels(targets: list[Path], without: frozenset[str]) -> list[str]:
    """Both functions of every aclnn kernel whose two names the wheel holds, and the few that have other companions."""
    names: set[str] = set()
    for target in targets:
        names |= {name.decode() for name in re.findall(rb"aclnn[A-Z][A-Za-z0-9]*", target.read_bytes())}
    lines = ['extern "C" long standin_kernel(const char*);']
    for name in sorted(names):
        if f"{name}GetWorkspaceSize" in names and name not in without:
            lines.append(f'extern "C" long {name}() {{ return 0; }}')
            if name != "aclnnInplaceCopy":  # in cann.cpp
                lines.append(f'extern "C" long {name}GetWorkspaceSize() {{ return standin_kernel("{name}"); }}')
        elif name.endswith(("GetMaxWorkspaceSize", "CalculateSizeAndFormat")) or name == "aclnnReselectStaticKernel":
            lines.append(f'extern "C" long {name}() {{ return 0; }}')
    return lines


def _needed() -> tuple[list[Path], set[str], set[str]]:
    """The wheel's shared objects, the libraries that are missing for them, and the symbols."""
    package, torch = _package("torch_npu"), _package("torch") / "lib"
    targets = [*package.glob("lib/*.so"), *package.glob("_C*.so"), *package.glob("dynamo/torchair/core/*.so")]
    present = {path.name for path in (*targets, *torch.glob("*.so*"))}
    needed = {name for path in targets for name in re.findall(r"NEEDED\s+(\S+)", _sh("objdump", "-p", path))}
    system = _sh(shutil.which("ldconfig") or "/sbin/ldconfig", "-p")
    libraries = {
        name for name in needed - present if name not in system and not name.startswith(("ld-linux", "libpython"))
    }
    pattern = rf"=> (/\S*{platform.machine()}\S*/lib(?:stdc\+\+|m|gcc_s|c|pthread|dl|rt)\.so\.\d+)"
    defined = {
        name
        for path in (*targets, *torch.glob("*.so"), *re.findall(pattern, system))
        for name in _symbols(path, "--defined-only")
    }
    undefined = {name for path in targets for name in _symbols(path, "--undefined-only")} - defined
    return targets, libraries, {name for name in undefined if not _OTHERS.match(name)}


def _symbols(path: Path | str, which: str) -> set[str]:
    rows = [line.split() for line in _sh("nm", "-D", which, path).splitlines()]
    return {row[-1].split("@")[0] for row in rows if which == "--defined-only" or row[-2] not in "wvV"}


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise SystemExit(f"{name} is not installed: `hatch env create npu` installs it")
    return Path(spec.origin).parent


def _sh(*command: object) -> str:
    ended = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if ended.returncode:
        raise SystemExit(
            f"npu:check cannot run: {command[0]} ended with status {ended.returncode}: {ended.stderr.strip()}"
        )
    return ended.stdout
