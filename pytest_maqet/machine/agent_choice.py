"""Which agents a VM's commands can take: QEMU's, and where nobody else uses the VM the quick maqet-exec."""

from __future__ import annotations

from pytest_maqet.config import VmConfig
from pytest_maqet.guest.agent import AgentChannel
from pytest_maqet.guest.channel import Channel
from pytest_maqet.guest.exec_port import ExecPort
from pytest_maqet.guest.quick_agent import QuickAgent
from pytest_maqet.machine.agent_port import AgentPort
from pytest_maqet.runs.vm_directory import VmDirectory
from pytest_maqet.waiting.vitals import Vitals


def agent_channel(config: VmConfig, directory: VmDirectory, vitals: Vitals, ports: AgentPort) -> Channel:
    """The channel `agent` of one QEMU process."""
    if config.scope == "run":  # other processes use it too, and each port serves one at a time
        return AgentChannel(directory.agent_socket, config.name, shared=True)
    port = ExecPort(directory.exec_socket, config.name)
    vitals.on_reset = port.lost
    agent = AgentChannel(directory.agent_socket, config.name)
    return QuickAgent(agent, port, ports.exec_listens)
