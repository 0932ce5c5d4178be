//! Every RPC is sent what is no request, or a bad one. Each refusal has a reason that programs can switch on; the server goes on.
//!
//! The RPCs and their messages come from the descriptors: a new one is tried without a word here.

use std::{collections::BTreeMap, num::NonZeroU32};

use bytes::Bytes;
use fusebox_control_plane::{
    access::{
        limits,
        rules::{Rule, TABLE, Weight},
    },
    grpc::status::Reason,
};
use fusebox_proto::v1::Role;
use http_body_util::BodyExt as _;
use prost::Message as _;
use prost_types::{
    DescriptorProto, FieldDescriptorProto, FileDescriptorSet, MethodDescriptorProto, field_descriptor_proto::Type,
};
use tokio::time::timeout;
use tonic::{Code, Status, body::Body, transport::Channel};
use tonic_types::StatusExt as _;
use tower::{Service as _, ServiceExt as _};

use crate::server::{BOOTSTRAP, LIMIT, Server, Told};

/// Deeper messages are left out: they have the fields of those above.
const DEEPEST: usize = 4;

/// What it is called, what is sent with which headers, and what it must be refused for.
type Wrong<'a> = (&'a str, Bytes, &'a [(&'a str, &'a str)], Option<Reason>);

struct Described {
    messages: BTreeMap<String, DescriptorProto>,
    methods: BTreeMap<String, MethodDescriptorProto>,
}

impl Described {
    fn read() -> Self {
        let (mut messages, mut methods) = (BTreeMap::new(), BTreeMap::new());
        let sets = [
            fusebox_proto::FILE_DESCRIPTOR_SET,
            tonic_health::pb::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
        ];
        for file in sets.into_iter().flat_map(|set| FileDescriptorSet::decode(set).unwrap().file) {
            let package = file.package().to_owned();
            for message in file.message_type {
                nest(&format!(".{package}"), message, &mut messages);
            }
            for service in file.service {
                let name = format!("{package}.{}", service.name());
                methods.extend(service.method.into_iter().map(|own| (format!("/{name}/{}", own.name()), own)));
            }
        }
        Self { messages, methods }
    }

    fn fields(&self, message: &str) -> &[FieldDescriptorProto] {
        self.messages.get(message).map_or(&[], |found| &found.field)
    }

    /// The message with this text in every field that takes one, at every depth.
    fn filled(&self, message: &str, text: &str, depth: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        for field in self.fields(message) {
            let kind = field.r#type();
            let inner = if matches!(kind, Type::String | Type::Bytes) {
                text.as_bytes().to_vec()
            } else if kind == Type::Message && depth < DEEPEST {
                self.filled(field.type_name(), text, depth + 1)
            } else {
                continue;
            };
            prost::encoding::encode_varint(key(field, 2), &mut bytes);
            prost::encoding::encode_varint(inner.len() as u64, &mut bytes);
            bytes.extend(inner);
        }
        bytes
    }

    /// The message with each field in the form of a field of another type.
    fn mistaken(&self, message: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        for field in self.fields(message) {
            let is_text = matches!(field.r#type(), Type::String | Type::Bytes | Type::Message);
            prost::encoding::encode_varint(key(field, if is_text { 5 } else { 1 }), &mut bytes);
            bytes.extend([0; 8].iter().take(if is_text { 4 } else { 8 }));
        }
        bytes
    }
}

fn nest(scope: &str, message: DescriptorProto, found: &mut BTreeMap<String, DescriptorProto>) {
    let name = format!("{scope}.{}", message.name());
    for inner in message.nested_type.clone() {
        nest(&name, inner, found);
    }
    found.insert(name, message);
}

fn key(field: &FieldDescriptorProto, wire_type: u64) -> u64 {
    u64::from(field.number().unsigned_abs()) << 3 | wire_type
}

fn frame(flag: u8, length: usize, message: &[u8]) -> Bytes {
    [&[flag], u32::try_from(length).unwrap().to_be_bytes().as_slice(), message].concat().into()
}

fn whole(message: &[u8]) -> Bytes {
    frame(0, message.len(), message)
}

/// The answer of an RPC to any bytes: its status, if the head has it, else what still comes.
async fn send(
    channel: &Channel,
    path: &str,
    token: Option<&str>,
    body: Bytes,
    more: &[(&str, &str)],
) -> http::Response<Body> {
    let mut request = http::Request::post(format!("http://127.0.0.1{path}")).header("te", "trailers");
    if !more.iter().any(|(name, _)| *name == "content-type") {
        request = request.header("content-type", "application/grpc");
    }
    for (name, value) in more {
        request = request.header(*name, *value);
    }
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let request = request.body(Body::new(http_body_util::Full::new(body))).unwrap();
    let mut channel = channel.clone();
    let call = async { channel.ready().await.unwrap().call(request).await };
    timeout(LIMIT, call).await.unwrap_or_else(|_| panic!("{path} does not answer")).unwrap()
}

/// Reads an answer to its end.
async fn ended(what: &str, answer: http::Response<Body>) -> Status {
    if let Some(status) = Status::from_header_map(answer.headers()) {
        return status;
    }
    let mut body = answer.into_body();
    let mut trailers = None;
    let read = async {
        while let Some(frame) = body.frame().await {
            let frame = frame.unwrap_or_else(|error| panic!("{what}: {error}"));
            trailers = frame.into_trailers().ok().or(trailers.take());
        }
    };
    timeout(LIMIT, read).await.unwrap_or_else(|_| panic!("{what} does not end"));
    Status::from_header_map(&trailers.unwrap_or_default()).unwrap_or_else(|| panic!("{what} ends without a status"))
}

/// What every refusal has.
fn reason_of(what: &str, status: &Status) -> Option<Reason> {
    if status.code() == Code::Ok {
        return None;
    }
    let details = status.get_error_details();
    let info = details.error_info().unwrap_or_else(|| panic!("{what}: no ErrorInfo in {status:?}"));
    assert_eq!(info.domain, "fusebox", "{what}");
    let reason = Reason::ALL.iter().copied().find(|reason| reason.name() == info.reason);
    let reason = reason.unwrap_or_else(|| panic!("{what}: {} is not in the table", info.reason));
    assert_eq!(reason.code(), status.code(), "{what}");
    assert!(!matches!(status.code(), Code::Internal | Code::Unknown), "{what}: {status:?}");
    let is_no_message = matches!(reason, Reason::MessageMalformed | Reason::MessageMissing | Reason::FrameMalformed);
    if status.code() == Code::InvalidArgument && !is_no_message {
        let bad = details.bad_request().unwrap_or_else(|| panic!("{what}: no BadRequest in {status:?}"));
        assert!(bad.field_violations.iter().any(|one| !one.field.is_empty()), "{what}: {bad:?}");
    }
    let goes_with = [
        (Code::NotFound, details.resource_info().is_some() || reason == Reason::NotFound),
        (Code::FailedPrecondition, details.precondition_failure().is_some()),
        (Code::Unavailable, details.retry_info().is_some()),
        (Code::ResourceExhausted, details.quota_failure().is_some()),
    ];
    let has = goes_with.into_iter().all(|(code, has)| code != status.code() || has);
    assert!(has, "{what}: {details:?}");
    Some(reason)
}

/// What goes on is metered generously: this is not about limits.
fn generous() -> Told {
    let limits = limits::Settings { writes_per_second: NonZeroU32::new(100_000).unwrap(), ..Default::default() };
    Told { limits, ..Told::default() }
}

#[tokio::test]
async fn every_refusal_of_every_rpc_has_a_reason_and_the_server_goes_on() {
    let described = Described::read();
    let server = Server::start(generous()).await;
    let channel = server.channel(None).await.unwrap();
    let (_, agent) = server.token("cart", Role::Agent, Some("service-a")).await;
    let mut going_on = Vec::new();
    for row in TABLE {
        let path = format!("/{}/{}", row.service, row.method);
        let method = &described.methods[&path];
        let token = if row.rule == Rule::Agent { agent.as_str() } else { BOOTSTRAP };
        let has_fields = !described.fields(method.input_type()).is_empty();
        // The library's own answer to what it can't read is the end of the stream.
        let is_foreign = row.service.starts_with("grpc.reflection");
        let wrong: [Wrong<'_>; 8] = [
            ("garbage", whole(&[0xff; 64]), &[], Some(Reason::MessageMalformed)),
            (
                "mistaken types",
                whole(&described.mistaken(method.input_type())),
                &[],
                has_fields.then_some(Reason::MessageMalformed),
            ),
            ("too large", frame(0, 1 << 30, b"abc"), &[], Some(Reason::MessageTooLarge)),
            ("a cut message", frame(0, 10, b"abc"), &[], Some(Reason::FrameMalformed)),
            ("a cut frame", Bytes::from_static(b"\0\0\0"), &[], Some(Reason::FrameMalformed)),
            ("a bad flag", frame(9, 0, b""), &[], Some(Reason::FrameMalformed)),
            ("compression", whole(b""), &[("grpc-encoding", "snappy")], Some(Reason::CompressionUnsupported)),
            ("nothing", Bytes::new(), &[], (!method.client_streaming()).then_some(Reason::MessageMissing)),
        ];
        for (kind, body, headers, wanted) in wrong {
            let what = format!("{path}: {kind}");
            if let Some(wanted) = wanted {
                let status = ended(&what, send(&channel, &path, Some(token), body, headers).await).await;
                let found = reason_of(&what, &status);
                assert!(found == Some(wanted) || is_foreign && found.is_none(), "{what}: {status:?}");
            }
        }
        let long = "x".repeat(20_000);
        for text in ["", "¿\u{1} nonsense/∞", &long] {
            let message = if text.is_empty() { Vec::new() } else { described.filled(method.input_type(), text, 0) };
            let what = format!("{path}: {:.16}", text);
            // Taken or refused; a stream that was taken has its end with the server's.
            let answer = send(&channel, &path, Some(token), whole(&message), &[]).await;
            going_on.push(tokio::spawn(async move { reason_of(&what, &ended(&what, answer).await) }));
        }
        let other = match row.rule {
            Rule::Everyone | Rule::Known | Rule::AgentOrViewer => None,
            Rule::Viewer | Rule::Operator | Rule::Admin => Some(agent.as_str()),
            Rule::Agent => Some(BOOTSTRAP),
        };
        if let Some(other) = other {
            let status = ended(&path, send(&channel, &path, Some(other), whole(b""), &[]).await).await;
            assert_eq!(reason_of(&path, &status), Some(Reason::RoleInsufficient), "{path}");
        }
        if row.rule != Rule::Everyone {
            let status = ended(&path, send(&channel, &path, None, whole(b""), &[]).await).await;
            let reason = reason_of(&path, &status);
            // From the twentieth on it is not even looked at.
            assert!(matches!(reason, Some(Reason::CredentialsMissing | Reason::IdentityLimit)), "{path}: {status:?}");
        }
        let json = send(&channel, &path, Some(token), whole(b""), &[("content-type", "application/json")]).await;
        assert_eq!(json.status(), http::StatusCode::UNSUPPORTED_MEDIA_TYPE, "{path}");
    }
    assert_eq!(server.admin().await.who().await.unwrap().name, "bootstrap", "the server goes on");
    server.stop().await;
    let mut ends = Vec::new();
    for one in going_on {
        ends.push(one.await.unwrap());
    }
    for reason in [Reason::PolicyInvalid, Reason::FieldInvalid, Reason::BreakerNotFound, Reason::Unavailable] {
        assert!(ends.contains(&Some(reason)), "{reason:?} was provoked by something");
    }
}

#[test]
fn every_write_can_be_tried_and_sent_again() {
    let described = Described::read();
    for row in TABLE.iter().filter(|row| row.weight == Weight::Write) {
        let method = &described.methods[&format!("/{}/{}", row.service, row.method)];
        let fields: Vec<_> = described.fields(method.input_type()).iter().map(FieldDescriptorProto::name).collect();
        assert!(
            ["request_id", "validate_only"].iter().all(|field| fields.contains(field)),
            "{}: {fields:?}",
            row.method
        );
    }
}
