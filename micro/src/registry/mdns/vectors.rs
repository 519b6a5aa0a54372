//! What a real go-micro node sent, and a reader of packets that shares nothing with ours.

use super::instance::Instance;

const VECTORS: &str = include_str!("../../../../tests/vectors/mdns-gomicro-v5.txt");

/// The packets in the order in which they were seen.
pub(super) struct Captured {
    pub(super) probes: Vec<Vec<u8>>,
    pub(super) announcements: Vec<Vec<u8>>,
    /// Each from another asker, the second with an id of 0.
    pub(super) queries: Vec<Vec<u8>>,
    pub(super) goodbye: Vec<u8>,
    pub(super) answer: Vec<u8>,
}

impl Captured {
    pub(super) fn all(&self) -> Vec<Vec<u8>> {
        let one = [&self.goodbye, &self.answer];
        let many = self.probes.iter().chain(&self.announcements).chain(&self.queries);
        many.chain(one).cloned().collect()
    }
}

pub(super) fn captured() -> Captured {
    let lines: Vec<_> = VECTORS
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let bytes = unhex(line.rsplit(' ').next().unwrap());
            let length = line.split(' ').skip_while(|word| *word != "len").nth(1).unwrap();
            assert_eq!(length.parse(), Ok(bytes.len()));
            bytes
        })
        .collect();
    assert_eq!(lines.len(), 9);
    Captured {
        probes: lines[..3].to_vec(),
        announcements: lines[3..5].to_vec(),
        queries: lines[5..7].to_vec(),
        goodbye: lines[7].clone(),
        answer: lines[8].clone(),
    }
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

pub(super) const ID: &str = "echo.v1-cfb391e1-63e4-4902-b15a-cc97324ae24f";

/// The node that was captured, its text as Go deflated it.
pub(super) fn captured_instance() -> Instance {
    let raw = Raw::read(&captured().announcements[0]);
    let strings = &raw.records[0][2].data;
    Instance {
        name: format!("{ID}.echo.v1.micro."),
        service: "echo.v1.micro.".to_owned(),
        host: "peer1.".to_owned(),
        port: 7950,
        ip: [127, 0, 0, 1].into(),
        scope: 0,
        text: strings.strip_prefix(b"text ").unwrap().to_vec(),
    }
}

/// A packet, field by field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Raw {
    pub(super) id: u16,
    pub(super) flags: u16,
    pub(super) questions: Vec<(String, u16, u16)>,
    /// Answers, authorities and the rest.
    pub(super) records: [Vec<RawRecord>; 3],
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RawRecord {
    pub(super) name: String,
    pub(super) kind: u16,
    pub(super) class: u16,
    pub(super) ttl: u32,
    /// Names written out, strings joined.
    pub(super) data: Vec<u8>,
}

impl Raw {
    pub(super) fn read(bytes: &[u8]) -> Self {
        let u16_at = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let mut at = 12;
        let mut questions = Vec::new();
        for _ in 0..u16_at(4) {
            let (name, end) = name(bytes, at);
            questions.push((name, u16_at(end), u16_at(end + 2)));
            at = end + 4;
        }
        let records = [6, 8, 10].map(|count| {
            let mut records = Vec::new();
            for _ in 0..u16_at(count) {
                let (name, fields) = name(bytes, at);
                let length = usize::from(u16_at(fields + 8));
                let data = fields + 10;
                let kind = u16_at(fields);
                at = data + length;
                records.push(RawRecord {
                    name,
                    kind,
                    class: u16_at(fields + 2),
                    ttl: u32::from(u16_at(fields + 4)) << 16 | u32::from(u16_at(fields + 6)),
                    data: self::data(bytes, kind, data, at),
                });
            }
            records
        });
        assert_eq!(at, bytes.len(), "nothing follows the last record");
        Self { id: u16_at(0), flags: u16_at(2), questions, records }
    }
}

fn data(bytes: &[u8], kind: u16, from: usize, to: usize) -> Vec<u8> {
    match kind {
        12 => name(bytes, from).0.into_bytes(),
        33 => [&bytes[from..from + 6], name(bytes, from + 6).0.as_bytes()].concat(),
        16 => {
            let mut text = b"text ".to_vec();
            let mut at = from;
            while at < to {
                let length = usize::from(bytes[at]);
                assert!(at + 1 + length == to || length == 255, "strings are filled up");
                text.extend(&bytes[at + 1..at + 1 + length]);
                at += 1 + length;
            }
            text
        }
        _ => bytes[from..to].to_vec(),
    }
}

fn name(bytes: &[u8], mut at: usize) -> (String, usize) {
    let (mut text, mut end) = (String::new(), None);
    loop {
        let length = usize::from(bytes[at]);
        if length >= 0xc0 {
            end = end.or(Some(at + 2));
            at = (length & 0x3f) << 8 | usize::from(bytes[at + 1]);
        } else if length == 0 {
            return (text, end.unwrap_or(at + 1));
        } else {
            text.push_str(std::str::from_utf8(&bytes[at + 1..at + 1 + length]).unwrap());
            text.push('.');
            at += 1 + length;
        }
    }
}
