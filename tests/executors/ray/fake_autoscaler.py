"""A cluster with Ray's own fake autoscaler, whose nodes are further raylets on this machine.

`ray.cluster_utils.AutoscalingCluster` needs a file that Ray's wheel lacks, and stops every Ray on the machine.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path


@contextlib.contextmanager
def autoscaling_cluster(folder, cpus, most):
    """The address of a head of one core; the autoscaler adds up to `most` nodes with `cpus` cores."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    memory = {"object_store_memory": 100 * 2**20}
    lists = ("head_setup_commands", "setup_commands", "worker_setup_commands", "initialization_commands")
    lists += ("head_start_ray_commands", "worker_start_ray_commands", "cluster_synced_files", "rsync_exclude")
    config = {
        "cluster_name": "fake",
        "max_workers": most,
        "upscaling_speed": 1.0,
        "idle_timeout_minutes": 10,
        "provider": {
            "type": "fake_multinode",
            "use_node_id_as_ip": True,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
            "foreground_node_launch": True,
            "module": "ray.autoscaler._private.fake_multi_node.node_provider",
            "gcs_address": f"127.0.0.1:{port}",
        },
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 1}, "node_config": {}, "max_workers": 0},
            "large": {"resources": {"CPU": cpus, **memory}, "node_config": {}, "min_workers": 0, "max_workers": most},
        },
        "head_node_type": "ray.head.default",
        "auth": {},
        "file_mounts": {},
        "file_mounts_sync_continuously": False,
        "rsync_filter": [],
        **{name: [] for name in lists},
    }
    file = Path(folder) / "autoscaler.json"
    file.write_text(json.dumps(config))
    command = ["ray", "start", "--head", "--block", f"--port={port}", "--node-ip-address=127.0.0.1", "--num-cpus=1"]
    command += ["--min-worker-port=0", "--max-worker-port=0", "--include-dashboard=false"]
    command += [f"--object-store-memory={memory['object_store_memory']}", f"--autoscaling-config={file}"]
    environment = os.environ | {"AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_FAKE_CLUSTER": "1"}
    head = subprocess.Popen(
        command, env=environment, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_for_port(port, head)
        yield f"127.0.0.1:{port}"
    finally:
        end_session(head)


def wait_for_port(port, process):
    while process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.2)
    raise AssertionError(f"ray start ended with {process.returncode}")


def end_session(process):
    """Kill all processes of its session, until there are none."""
    while there := [int(entry.name) for entry in Path("/proc").iterdir() if is_of(entry.name, process.pid)]:
        for pid in there:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.poll()
        time.sleep(0.05)
    process.wait()


def is_of(pid, session):
    """Whether the process is of the session and runs."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return False
    return fields[0] != "Z" and int(fields[3]) == session
