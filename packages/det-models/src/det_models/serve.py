"""The command that serves a detector."""

import argparse
import socket
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from det_models.errors import OptionError, whole_number

__all__ = ["serve"]


def serve(args: Sequence[str] | None = None, prog: str = "python -m det_models serve") -> None:
    """Serve a detector on this machine: a page to drop pictures on, and JSON for programs.

    Args:
        args: Of the command line, without the command's name.
        prog: What messages call the command.

    Raises:
        WeightsError, CheckpointError: The file is missing, damaged, or holds no detector.
        OptionError: FastAPI or uvicorn is not installed, or an option is out of range.
    """
    try:
        import uvicorn

        from det_models.loading import load
        from det_models.server import Limits, application
    except ImportError as error:
        raise OptionError(f"A server needs what is not installed: pip install 'det-models[serve]' ({error}).") from None
    parser = _parser(prog)
    for field in fields(Limits):
        parser.add_argument(
            f"--max-{field.name}",
            type=int if isinstance(field.default, int) else float,
            default=field.default,
            help=f"{_HELP[field.name]} (default: %(default)s)",
        )
    options = parser.parse_args(args)
    limits = Limits(**{field.name: getattr(options, f"max_{field.name}") for field in fields(Limits)})
    detector = load(options.weights, device=options.device, precision=options.precision)
    app = application(detector, batch=whole_number("--batch", options.batch), limits=limits)
    with _listening(options.host, options.port) as listener:
        host = f"[{options.host}]" if ":" in options.host else options.host
        print(f"{detector}\nhttp://{host}:{listener.getsockname()[1]} (Ctrl-C ends it)", flush=True)
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        server.run([listener])


_HELP = {
    "megabytes": "largest size of a picture's file",
    "megapixels": "largest size of a picture",
    "seconds": "longest time until a request is answered",
    "waiting": "most requests at a time",
}


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=prog, description=(serve.__doc__ or "").splitlines()[0])
    parser.add_argument("--weights", type=Path, required=True, help="run, checkpoint, or name of a published detector")
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on; 0.0.0.0 lets in anyone who can reach this machine (default: %(default)s)",
    )
    parser.add_argument(
        "--port", type=int, default=8000, help="port to listen on; 0 takes a free one (default: %(default)s)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or npu (default: %(default)s)")
    parser.add_argument("--precision", default="fp32", help="fp32, bf16 or fp16 (default: %(default)s)")
    parser.add_argument(
        "--batch", type=int, default=4, help="most pictures of concurrent requests at a time (default: %(default)s)"
    )
    return parser


def _listening(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError) as error:
        raise OptionError(
            f"Nothing can listen at port {port} of {host}: {error}. Give another --port or --host."
        ) from None
