"""Works with policies knowing only the server's address: everything else comes from reflection."""

import sys
import threading

import grpc
from google.protobuf import descriptor_pool, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

channel = grpc.insecure_channel(sys.argv[1])
database = ProtoReflectionDescriptorDatabase(channel)
pool = descriptor_pool.DescriptorPool(database)
services = database.get_services()
for expected in ("fusebox.v1.PolicyService", "fusebox.v1.BreakerService", "fusebox.v1.FleetService", "grpc.health.v1.Health"):
    assert expected in services, services

service = pool.FindServiceByName("fusebox.v1.PolicyService")


def method(name):
    found = service.methods_by_name[name]
    request = message_factory.GetMessageClass(found.input_type)
    response = message_factory.GetMessageClass(found.output_type)
    kind = channel.unary_stream if found.server_streaming else channel.unary_unary
    call = kind(
        f"/{service.full_name}/{name}",
        request_serializer=request.SerializeToString,
        response_deserializer=response.FromString,
    )
    return request, call


def fill(policy):
    getattr(policy.spec, "match").target = "service-b"
    getattr(policy.spec, "match").caller = "service-a"
    policy.spec.pipeline.add().retry.max_attempts = 4
    policy.spec.pipeline.add().timeout.duration.seconds = 2


# Watch first, so that the creation is seen as it happens.
request, watch = method("WatchPolicies")
events = watch(request(parent="namespaces/default"), timeout=20)
first = next(events)
assert first.WhichOneof("event") == "bookmark", first
seen = []


def follow():
    for event in events:
        seen.append(event)
        if event.WhichOneof("event") == "upserted":
            return


follower = threading.Thread(target=follow)
follower.start()

request, create = method("CreatePolicy")
wish = request(parent="namespaces/default", policy_id="from-python", message="made by reflection")
fill(wish.policy)
created = create(wish, timeout=10)
assert created.name == "namespaces/default/policies/from-python", created
assert created.revision == 1 and created.etag, created

request, get = method("GetPolicy")
got = get(request(name=created.name), timeout=10)
# How far it has got is told to whoever reads it, and no part of what was written.
assert got.HasField("status") and not got.status.reconciling, got
got.ClearField("status")
assert got == created, (got, created)
assert got.spec.pipeline[0].retry.max_attempts == 4

request, listed = method("ListPolicies")
answer = listed(request(parent="namespaces/-"), timeout=10)
assert [policy.name for policy in answer.policies] == [created.name], answer

follower.join(timeout=20)
assert seen and seen[-1].upserted.name == created.name, seen

# What can't be is refused with the path of the field.
request, create = method("CreatePolicy")
wrong = request(parent="namespaces/default", policy_id="wrong")
getattr(wrong.policy.spec, "match").target = "service-c"
wrong.policy.spec.pipeline.add().retry.max_attempts = 0
try:
    create(wrong, timeout=10)
    raise AssertionError("zero attempts must be refused")
except grpc.RpcError as error:
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT, error
    assert "spec.pipeline[0].retry.maxAttempts" in error.details(), error.details()

print("created, got, listed, watched")
