"""What a rig's host does: fills, mixed operations and read-backs, all recorded in a history."""

from hwvirt.rig.workload.drive import Counts, Progress, Reconnect
from hwvirt.rig.workload.plan import Mix, WorkloadPlan
from hwvirt.rig.workload.run import fill, read_all, run_workload

__all__ = ["Counts", "Mix", "Progress", "Reconnect", "WorkloadPlan", "fill", "read_all", "run_workload"]
