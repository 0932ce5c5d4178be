//! Changes of a protobuf message that leave it one.
//!
//! A change of any byte mostly breaks the lengths around it, and then nothing is read. This one takes the message apart by the wire
//! format alone, changes one field, and puts it together again.

use fastrand::Rng;

/// A field: its number and what it holds.
#[derive(Clone, Debug, PartialEq)]
struct Field {
    number: u64,
    value: Value,
}

#[derive(Clone, Debug, PartialEq)]
enum Value {
    Varint(u64),
    Fixed64([u8; 8]),
    Fixed32([u8; 4]),
    /// Text, or what is no message.
    Bytes(Vec<u8>),
    /// What can be read as one.
    Message(Vec<Field>),
}

/// Deeper than any message of ours.
const MAX_DEPTH: usize = 12;

/// Numbers at which something begins or ends.
const EDGES: [u64; 18] = [
    0,
    1,
    2,
    99,
    100,
    101,
    599,
    600,
    1000,
    999_999_999,
    1_000_000_000,
    u32::MAX as u64,
    1 << 32,
    253_402_300_799,
    315_576_000_000,
    i64::MAX as u64,
    1 << 63,
    u64::MAX,
];

const FRACTIONS: [f64; 12] =
    [0.0, -0.0, 1e-9, 0.5, 1.0, 1.000_000_1, 99.999_999_9, 1e18, f64::MAX, f64::NAN, f64::INFINITY, -1.0];

const TEXTS: [&str; 12] =
    ["", "a", "*", "GET /*", "503", "5xx", "x-a", "\u{0}", "\u{7f}", "\u{ffff}", "\"\\\n", "UNAVAILABLE"];

/// The message with one change; the bytes as they are where they are no message.
#[must_use]
pub fn change(bytes: &[u8], seed: u64) -> Vec<u8> {
    let mut random = Rng::with_seed(seed);
    let Some(mut fields) = read(bytes, 0) else { return bytes.to_vec() };
    change_one(&mut fields, &mut random);
    write(&fields)
}

fn change_one(fields: &mut Vec<Field>, random: &mut Rng) {
    if fields.is_empty() || random.u8(..) < 12 {
        fields.push(any_field(random));
        return;
    }
    let index = random.usize(..fields.len());
    if let Value::Message(inner) = &mut fields[index].value
        && random.u8(..) < 240
    {
        return change_one(inner, random);
    }
    let other = random.usize(..fields.len());
    match random.u8(..24) {
        0 => drop(fields.remove(index)),
        1 => fields.insert(other, fields[index].clone()),
        2 => fields.swap(index, other),
        3 => fields[index].number = random.u64(1..20),
        4 => fields[index] = any_field(random),
        _ => change_value(&mut fields[index].value, random),
    }
}

fn any_field(random: &mut Rng) -> Field {
    let value = match random.u8(..4) {
        0 => Value::Varint(EDGES[random.usize(..EDGES.len())]),
        1 => Value::Fixed64(FRACTIONS[random.usize(..FRACTIONS.len())].to_le_bytes()),
        2 => Value::Bytes(TEXTS[random.usize(..TEXTS.len())].as_bytes().to_vec()),
        _ => Value::Message(Vec::new()),
    };
    Field { number: random.u64(1..20), value }
}

fn change_value(value: &mut Value, random: &mut Rng) {
    match value {
        Value::Varint(number) => {
            *number = match random.u8(..4) {
                0 => number.wrapping_add(1),
                1 => number.wrapping_sub(1),
                2 => *number ^ 1 << random.u32(..64),
                _ => EDGES[random.usize(..EDGES.len())],
            }
        }
        Value::Fixed64(bytes) => {
            *bytes = match random.u8(..2) {
                0 => (f64::from_le_bytes(*bytes) * (random.f64() * 2.0)).to_le_bytes(),
                _ => FRACTIONS[random.usize(..FRACTIONS.len())].to_le_bytes(),
            }
        }
        Value::Fixed32(bytes) => random.fill(bytes),
        Value::Bytes(bytes) => {
            let at = random.usize(..=bytes.len());
            match random.u8(..4) {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, random.u8(..)),
                2 => drop(bytes.splice(at..at, TEXTS[random.usize(..TEXTS.len())].bytes())),
                _ => *bytes = TEXTS[random.usize(..TEXTS.len())].as_bytes().to_vec(),
            }
        }
        Value::Message(fields) => fields.clear(),
    }
}

fn read(mut bytes: &[u8], depth: usize) -> Option<Vec<Field>> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = read_varint(&mut bytes)?;
        let value = match key & 7 {
            0 => Value::Varint(read_varint(&mut bytes)?),
            1 => Value::Fixed64(*take(&mut bytes)?),
            2 => {
                let length = usize::try_from(read_varint(&mut bytes)?).ok()?;
                let (inner, rest) = bytes.split_at_checked(length)?;
                bytes = rest;
                let message = if depth < MAX_DEPTH && !inner.is_empty() { read(inner, depth + 1) } else { None };
                message.map_or_else(|| Value::Bytes(inner.to_vec()), Value::Message)
            }
            5 => Value::Fixed32(*take(&mut bytes)?),
            _ => return None,
        };
        let number = key >> 3;
        if number == 0 {
            return None;
        }
        fields.push(Field { number, value });
    }
    Some(fields)
}

fn take<'a, const N: usize>(bytes: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (first, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(first)
}

fn read_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let [byte] = *take::<1>(bytes)?;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

fn write(fields: &[Field]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for Field { number, value } in fields {
        let mut key = |kind: u64| write_varint(&mut bytes, number << 3 | kind);
        match value {
            Value::Varint(number) => {
                key(0);
                write_varint(&mut bytes, *number);
            }
            Value::Fixed64(fixed) => {
                key(1);
                bytes.extend(fixed);
            }
            Value::Fixed32(fixed) => {
                key(5);
                bytes.extend(fixed);
            }
            Value::Bytes(inner) => {
                key(2);
                write_varint(&mut bytes, inner.len() as u64);
                bytes.extend(inner);
            }
            Value::Message(fields) => {
                key(2);
                let inner = write(fields);
                write_varint(&mut bytes, inner.len() as u64);
                bytes.extend(inner);
            }
        }
    }
    bytes
}

fn write_varint(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

#[cfg(test)]
mod tests {
    use fusebox_policy::Policy;
    use fusebox_proto::{manifest, v1};
    use prost::Message as _;

    use super::*;

    #[test]
    fn a_changed_message_can_still_be_read() {
        let text = include_str!("../corpus/manifest/circuit-breaker.yaml");
        let policy = manifest::parse("seed", text).unwrap().remove(0).policy;
        let bytes = v1::Policy::from(&policy).encode_to_vec();
        assert_eq!(read(&bytes, 0).map(|fields| write(&fields)), Some(bytes.clone()));
        let changed: Vec<_> =
            (0..200).filter_map(|seed| v1::Policy::decode(change(&bytes, seed).as_slice()).ok()).collect();
        // Some texts are no UTF-8 any more, and some fields have a value of another type.
        assert!(changed.len() > 100, "{}", changed.len());
        let valid: Vec<_> = changed.into_iter().filter_map(|wire| Policy::try_from(wire).ok()).collect();
        let other = valid.iter().filter(|own| **own != policy).count();
        assert!(other > 10, "{other} of {}", valid.len());
    }
}
