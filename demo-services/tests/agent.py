"""An agent and an operator in another language, made from the .proto files and nothing else.

Reads its settings from the environment: ADDRESS, PROTO (folder of the .proto files), CA (file), and the tokens ADMIN (role admin), VIEWER
(role viewer) and AGENT (role agent, of service-a in namespace default).
"""

import importlib
import os
import queue
import sys
import tempfile
import time
from pathlib import Path

import grpc
from google.protobuf.duration_pb2 import Duration
from grpc_tools import protoc

# The stubs, from the files alone.
proto = Path(os.environ["PROTO"])
made = tempfile.TemporaryDirectory()
files = [str(file.relative_to(proto)) for file in sorted(proto.glob("fusebox/**/*.proto"))]
well_known = Path(importlib.import_module("grpc_tools").__file__).parent / "_proto"
failed = protoc.main(
    ["protoc", f"-I{proto}", f"-I{well_known}", f"--python_out={made.name}", f"--grpc_python_out={made.name}", *files]
)
assert failed == 0, "protoc refused the files"
sys.path.insert(0, made.name)
policy_pb = importlib.import_module("fusebox.v1.policy_service_pb2")
policy_rpc = importlib.import_module("fusebox.v1.policy_service_pb2_grpc")
breaker_pb = importlib.import_module("fusebox.v1.breaker_service_pb2")
breaker_rpc = importlib.import_module("fusebox.v1.breaker_service_pb2_grpc")
fleet_pb = importlib.import_module("fusebox.v1.fleet_service_pb2")
fleet_rpc = importlib.import_module("fusebox.v1.fleet_service_pb2_grpc")
sync_pb = importlib.import_module("fusebox.sync.v1.sync_pb2")
sync_rpc = importlib.import_module("fusebox.sync.v1.sync_pb2_grpc")


def channel(token):
    transport = grpc.ssl_channel_credentials(Path(os.environ["CA"]).read_bytes())
    if token is not None:
        transport = grpc.composite_channel_credentials(transport, grpc.access_token_call_credentials(token))
    return grpc.secure_channel(os.environ["ADDRESS"], transport)


def refused(code, call):
    try:
        call()
    except grpc.RpcError as error:
        assert error.code() == code, f"{error.code()}: {error.details()}"
        return error.details()
    raise AssertionError(f"{code} was expected")


admin, viewer, agent, nobody = (channel(token) for token in (*(os.environ[role] for role in ("ADMIN", "VIEWER", "AGENT")), None))


# An operator defines a policy.
wish = policy_pb.CreatePolicyRequest(parent="namespaces/default", policy_id="from-python", message="made from the files")
getattr(wish.policy.spec, "match").target = "service-b"
getattr(wish.policy.spec, "match").caller = "service-a"
wish.policy.spec.pipeline.add().circuit_breaker.trip.consecutive_failures = 3
created = policy_rpc.PolicyServiceStub(admin).CreatePolicy(wish, timeout=10)

# An agent subscribes.
said = queue.SimpleQueue()
stream = sync_rpc.SyncServiceStub(agent).Sync(iter(said.get, None), timeout=60)


def tell(**message):
    said.put(sync_pb.SyncRequest(**message))


def hello(service):
    return sync_pb.Hello(
        protocol=1, namespace="default", service=service, instance="python-1", incarnation=7, sdk_version="python/0", policy_source="none"
    )


def hear(kind):
    """The next message of this kind; others may come first."""
    for message in stream:
        if message.WhichOneof("message") == kind:
            return getattr(message, kind)
    raise AssertionError(f"the stream ended before {kind}")


tell(hello=hello("service-a"))
welcome = hear("welcome")
assert welcome.term >= 1 and welcome.lease.ToTimedelta().total_seconds() > 0, welcome
begin = hear("snapshot_begin")
policies = []
for message in stream:
    if message.WhichOneof("message") == "policy_chunk":
        policies.extend(message.policy_chunk.policies)
    elif message.WhichOneof("message") == "snapshot_end":
        assert message.snapshot_end.revision == begin.revision and message.snapshot_end.policies == len(policies), message
        break
assert [policy.name for policy in policies] == [created.name], policies
assert policies[0].spec.pipeline[0].circuit_breaker.trip.consecutive_failures == 3, policies

# It acknowledges, and operators see that.
tell(ack=sync_pb.Ack(revision=begin.revision))
fleet = fleet_rpc.FleetServiceStub(viewer)


def until(what, look):
    """Waits, within a limit, for what the server will show."""
    limit = time.monotonic() + 20
    while time.monotonic() < limit:
        seen = look()
        if seen:
            return seen
        time.sleep(0.02)
    raise AssertionError(f"{what} was not seen in time")


def acknowledged():
    listed = fleet.ListInstances(fleet_pb.ListInstancesRequest(), timeout=10).instances
    return [instance for instance in listed if instance.instance == "python-1" and instance.applied_revision == begin.revision]


until("the acknowledgement", acknowledged)

# Its breaker trips, and it reports so.
tell(heartbeat=sync_pb.Heartbeat(seq=1))
assert hear("heartbeat_ack").seq == 1
key = breaker_pb.BreakerKey(namespace="default", caller="service-a", policy="from-python", strategy="circuit-breaker", target="service-b")
tell(
    transition=sync_pb.Transition(
        window=sync_pb.BreakerWindow(
            key=key, policy_revision=begin.revision, local_state=breaker_pb.LOCAL_STATE_OPEN, own_trip=True, calls=3, failures=3,
            causes=sync_pb.CauseCounts(connect_error=3),
        ),
        **{"from": breaker_pb.LOCAL_STATE_CLOSED}, cause="consecutive_failures", seq=1,
    )
)
breakers = breaker_rpc.BreakerServiceStub(viewer)


def reported():
    listed = breakers.ListBreakerTransitions(breaker_pb.ListBreakerTransitionsRequest(), timeout=10).transitions
    return [transition for transition in listed if transition.instance == "python-1" and transition.cause == "consecutive_failures"]


until("the transition", reported)

# What its role may not do is refused: to write, to read what operators read, to speak for another service.
DENIED, UNKNOWN = grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED
wish.policy_id = "another"
said_of_write = refused(DENIED, lambda: policy_rpc.PolicyServiceStub(agent).CreatePolicy(wish, timeout=10))
assert "agent" in said_of_write, said_of_write
force = breaker_pb.ForceBreakerRequest(
    selector=key, state=breaker_pb.FLEET_STATE_FORCED_OPEN, reason="no", duration=Duration(seconds=60)
)
refused(DENIED, lambda: breaker_rpc.BreakerServiceStub(agent).ForceBreaker(force, timeout=10))
refused(DENIED, lambda: fleet_rpc.FleetServiceStub(agent).ListInstances(fleet_pb.ListInstancesRequest(), timeout=10))
impostor = sync_pb.SyncRequest(hello=hello("service-x"))
refused(DENIED, lambda: next(sync_rpc.SyncServiceStub(agent).Sync(iter([impostor]), timeout=10)))
other = sync_pb.FetchSnapshotRequest(namespace="default", service="service-x")
refused(DENIED, lambda: sync_rpc.SyncServiceStub(agent).FetchSnapshot(other, timeout=10))
own = sync_pb.FetchSnapshotRequest(namespace="default", service="service-a")
assert len(sync_rpc.SyncServiceStub(agent).FetchSnapshot(own, timeout=10).policies) == 1
# A viewer reads and does not write; who says nothing is nobody.
refused(DENIED, lambda: policy_rpc.PolicyServiceStub(viewer).CreatePolicy(wish, timeout=10))
refused(UNKNOWN, lambda: fleet_rpc.FleetServiceStub(nobody).ListInstances(fleet_pb.ListInstancesRequest(), timeout=10))
refused(UNKNOWN, lambda: next(sync_rpc.SyncServiceStub(nobody).Sync(iter([sync_pb.SyncRequest(hello=hello("service-a"))]), timeout=10)))

said.put(None)
print("subscribed, received, acknowledged, reported, refused")
