//! The `.proto` files say what everything means, every enum has its zero, and what was promised stays.

#![expect(clippy::unwrap_used, reason = "a test that can not go on should say where")]

use prost_types::{DescriptorProto, EnumDescriptorProto, FileDescriptorProto, field_descriptor_proto::Label};

fn files() -> Vec<FileDescriptorProto> {
    let mut compiler = protox::Compiler::new([env!("CARGO_MANIFEST_DIR")]).unwrap();
    compiler.include_source_info(true);
    compiler
        .open_files([
            "fusebox/v1/policy_service.proto",
            "fusebox/v1/breaker_service.proto",
            "fusebox/v1/fleet_service.proto",
            "fusebox/v1/admin_service.proto",
            "fusebox/v1/audit_service.proto",
            "fusebox/v1/rollout_service.proto",
            "fusebox/v1/policy.proto",
            "fusebox/sync/v1/sync.proto",
        ])
        .unwrap();
    compiler.file_descriptor_set().file
}

/// Descriptor paths, as in `SourceCodeInfo`, of everything that must have a comment.
fn message(path: &[i32], name: &str, message: &DescriptorProto, wanted: &mut Vec<(Vec<i32>, String)>) {
    wanted.push((path.to_vec(), name.to_owned()));
    let at = |kind: i32, index: usize| [path, &[kind, i32::try_from(index).unwrap()]].concat();
    for (index, field) in message.field.iter().enumerate() {
        wanted.push((at(2, index), format!("{name}.{}", field.name())));
    }
    for (index, nested) in message.enum_type.iter().enumerate() {
        enumeration(&at(4, index), nested, wanted);
    }
}

fn enumeration(path: &[i32], found: &EnumDescriptorProto, wanted: &mut Vec<(Vec<i32>, String)>) {
    assert!(found.value[0].number() == 0 && found.value[0].name().ends_with("_UNSPECIFIED"), "{}", found.name());
    wanted.push((path.to_vec(), found.name().to_owned()));
    for (index, value) in found.value.iter().enumerate() {
        wanted.push(([path, &[2, i32::try_from(index).unwrap()]].concat(), value.name().to_owned()));
    }
}

#[test]
fn everything_on_the_wire_has_a_comment_and_every_enum_its_zero() {
    let mut seen = 0;
    for file in files().iter().filter(|file| file.package().starts_with("fusebox.")) {
        let mut wanted = Vec::new();
        let number = |index: usize| i32::try_from(index).unwrap();
        for (index, found) in file.message_type.iter().enumerate() {
            message(&[4, number(index)], found.name(), found, &mut wanted);
        }
        for (index, found) in file.enum_type.iter().enumerate() {
            enumeration(&[5, number(index)], found, &mut wanted);
        }
        for (index, service) in file.service.iter().enumerate() {
            wanted.push((vec![6, number(index)], service.name().to_owned()));
            for (method, found) in service.method.iter().enumerate() {
                wanted.push((vec![6, number(index), 2, number(method)], found.name().to_owned()));
            }
        }
        let info = file.source_code_info.as_ref().unwrap();
        for (path, name) in wanted {
            let commented = info
                .location
                .iter()
                .any(|location| location.path == path && !location.leading_comments().trim().is_empty());
            assert!(commented, "{} in {} has no comment", name, file.name());
            seen += 1;
        }
    }
    assert!(seen > 300, "only {seen} things were looked at");
}

/// What a client may rely on, a line each: a method and its types, a field with its number and type, a value with its number.
fn promises() -> Vec<String> {
    fn fields(name: &str, message: &DescriptorProto, lines: &mut Vec<String>) {
        for field in &message.field {
            let of = match field.type_name() {
                "" => format!("{:?}", field.r#type()).to_lowercase(),
                named => named.trim_start_matches('.').to_owned(),
            };
            let many = if field.label() == Label::Repeated { "repeated " } else { "" };
            lines.push(format!("field {name}.{} = {} {many}{of}", field.name(), field.number()));
        }
        for inner in &message.nested_type {
            fields(&format!("{name}.{}", inner.name()), inner, lines);
        }
        for inner in &message.enum_type {
            values(&format!("{name}.{}", inner.name()), inner, lines);
        }
    }
    fn values(name: &str, found: &EnumDescriptorProto, lines: &mut Vec<String>) {
        lines.extend(found.value.iter().map(|value| format!("value {name}.{} = {}", value.name(), value.number())));
    }
    let mut lines = Vec::new();
    for file in files().iter().filter(|file| file.package().starts_with("fusebox.")) {
        let package = file.package();
        for message in &file.message_type {
            fields(&format!("{package}.{}", message.name()), message, &mut lines);
        }
        for found in &file.enum_type {
            values(&format!("{package}.{}", found.name()), found, &mut lines);
        }
        for service in &file.service {
            lines.extend(service.method.iter().map(|method| {
                let stream = |is: bool| if is { "stream " } else { "" };
                let (input, output) =
                    (method.input_type().trim_start_matches('.'), method.output_type().trim_start_matches('.'));
                let (up, down) = (stream(method.client_streaming()), stream(method.server_streaming()));
                format!("rpc {package}.{}.{}({up}{input}) {down}{output}", service.name(), method.name())
            }));
        }
    }
    lines.sort();
    lines
}

/// Additions are free. Write them down with `FUSEBOX_WRITE_WIRE=1 cargo test -p fusebox-proto --test descriptor`: from then on they stay.
#[test]
fn nothing_that_was_promised_on_the_wire_is_gone_or_different() {
    let now = promises();
    if std::env::var_os("FUSEBOX_WRITE_WIRE").is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/wire-v1.txt");
        std::fs::write(path, now.join("\n") + "\n").unwrap();
        return;
    }
    let broken: Vec<_> = include_str!("golden/wire-v1.txt")
        .lines()
        .filter(|line| now.binary_search(&(*line).to_owned()).is_err())
        .collect();
    assert!(broken.is_empty(), "clients rely on these, and they are gone or different:\n{}", broken.join("\n"));
}
