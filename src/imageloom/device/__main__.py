"""Run the device process: `python -m imageloom.device --fd N`, started by a worker only."""

from __future__ import annotations

import argparse
import signal
import socket
from concurrent.futures import ThreadPoolExecutor

import msgspec
import setproctitle
import structlog

from imageloom.device.link import Link
from imageloom.domain import drill
from imageloom.domain.messages import Relieved
from imageloom.domain.speed import Speed
from imageloom.logs import configure_logs

_log = structlog.get_logger("imageloom.device")


def main() -> None:
    """Connect to the parent over the inherited socket, import torch, and work until it hangs up."""
    parser = argparse.ArgumentParser(prog="imageloom device")
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--log-format", default="auto")
    parser.add_argument("--drill", default="{}", help="a `Drill` as JSON")
    parser.add_argument("--speed", default="{}", help="a `Speed` as JSON")
    args = parser.parse_args()
    setproctitle.setproctitle("imageloom device")
    # Ctrl-C in a terminal reaches every process; the parent decides when this one goes.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    configure_logs(args.log_format)
    link = Link(socket.socket(fileno=args.fd))
    link.start()

    if args.device == drill.NAME:
        _play(link, msgspec.json.decode(args.drill, type=drill.Drill))
    else:
        _work(link, args)


def _work(link: Link, args: argparse.Namespace) -> None:
    import torch

    from imageloom.device.loop import DeviceLoop  # torch takes 5 s to import: after the link is up
    from imageloom.runtime.residency import Residency
    from imageloom.runtime.torch_device import choose_device

    speed = msgspec.json.decode(args.speed, type=Speed)
    device = choose_device(args.device, threads=args.threads, speed=speed)
    link.send(device.ready())
    # Whether gradients are kept is a matter of each thread.
    loader = ThreadPoolExecutor(1, "loader", initializer=torch.set_grad_enabled, initargs=(False,))
    residency = Residency(
        device, loader=loader, relieved=lambda rung: link.send(Relieved(rung=rung))
    )
    DeviceLoop(link, residency).run()


def _play(link: Link, options: drill.Drill) -> None:
    from imageloom.device.drill import READY, DrillMemory, DrillOpener
    from imageloom.device.loop import DeviceLoop

    # So that nobody takes these pictures for a model's: here, in the worker's name of its device,
    # and in every receipt.
    _log.warning("drill_no_model_draws_these_pictures", **msgspec.structs.asdict(options))
    link.send(READY)
    DeviceLoop(link, DrillMemory(), opener=DrillOpener(options)).run()


main()
