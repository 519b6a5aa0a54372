//! Packets: go-micro's dialect of mDNS, on `simple-dns`'s messages.
//!
//! What comes in is checked and turned into owned values; what belongs to other services is passed
//! over. Names are compared as they are written: in DNS case makes no difference, but to go-micro,
//! and to every other registry, `Greeter` and `greeter` are two services.

use std::net::IpAddr;

use simple_dns::{
    CLASS, CharacterString, Label, Name, OPCODE, Packet as Message, PacketFlag, QCLASS, QTYPE,
    Question as Asked, RCODE, ResourceRecord, TYPE,
    rdata::{A, AAAA, PTR, RData, SRV, TXT},
};

use super::instance::Instance;

/// How long a record stands unless it is heard again, in seconds, as go-micro has it.
pub(super) const TTL: u32 = 120;

/// Asked for the names of all services.
pub(super) const SERVICES: &str = "_services.micro.";

/// Questions and records taken in one packet. What mDNS allows in its length (9000 bytes: RFC 6762,
/// section 17) holds fewer; with names that point at one long one, each takes some KiB.
pub(super) const MAX_RECORDS: usize = 1024;

/// A datagram over IPv4 holds no more.
pub(super) const MAX_PACKET: usize = 65_507;

/// A packet, as far as it concerns us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Packet {
    Query(Query),
    Response(Vec<Record>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Query {
    pub(super) id: u16,
    pub(super) questions: Vec<Question>,
    /// What the sender is about to announce: this makes the query a probe.
    pub(super) claims: Vec<Record>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) name: String,
    pub(super) kind: Kind,
    /// Whether the answer shall go to the asker alone.
    pub(super) unicast: bool,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Ptr,
    Any,
    /// Of an instance's own records those of this type.
    Own(TYPE),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) name: String,
    pub(super) ttl: u32,
    pub(super) data: Data,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Data {
    Ptr(String),
    /// The strings of a TXT record, joined.
    Text(Vec<u8>),
    Srv {
        port: u16,
        host: String,
    },
    Address {
        ip: IpAddr,
        /// The index of the interface that a link-local address is of; 0 with any other, and in packets,
        /// which do not tell it.
        scope: u32,
    },
}

// ===== reading =====

/// # Errors
/// What is wrong with the packet, in words.
pub(super) fn read(bytes: &[u8]) -> Result<Packet, String> {
    check_counts(bytes)?;
    let message = Message::parse(bytes).map_err(|error| format!("it is malformed: {error}"))?;
    // RFC 6762, sections 18.3 and 18.11: any other is ignored.
    if message.opcode() != OPCODE::StandardQuery || message.rcode() != RCODE::NoError {
        return Err("its operation or response code is not 0".to_owned());
    }
    if message.has_flags(PacketFlag::RESPONSE) {
        let records = message.answers.iter().chain(&message.additional_records);
        return Ok(Packet::Response(records.filter_map(record).collect()));
    }
    Ok(Packet::Query(Query {
        id: message.id(),
        questions: message.questions.iter().filter_map(question).collect(),
        claims: message.name_servers.iter().filter_map(record).collect(),
    }))
}

/// Refuses a header that promises more than the packet can hold, or than is taken, before memory is
/// set aside for it.
fn check_counts(bytes: &[u8]) -> Result<(), String> {
    /// The root's name, a kind and a class; for a record a TTL and a length too.
    const QUESTION: usize = 5;
    const RECORD: usize = 11;
    let Some((header, body)) = bytes.split_at_checked(12) else {
        return Err(format!("its {} bytes are no header", bytes.len()));
    };
    let count = |at: usize| usize::from(u16::from_be_bytes([header[at], header[at + 1]]));
    let (questions, records) = (count(4), count(6) + count(8) + count(10));
    if questions * QUESTION + records * RECORD > body.len() {
        return Err("it promises more records than it has room for".to_owned());
    }
    let all = questions + records;
    if all > MAX_RECORDS {
        return Err(format!("it has {all} questions and records, over the limit of {MAX_RECORDS}"));
    }
    Ok(())
}

fn question(question: &Asked<'_>) -> Option<Question> {
    if !matches!(question.qclass, QCLASS::CLASS(CLASS::IN) | QCLASS::ANY) {
        return None;
    }
    let kind = match question.qtype {
        QTYPE::TYPE(TYPE::PTR) => Kind::Ptr,
        QTYPE::ANY => Kind::Any,
        QTYPE::TYPE(of @ (TYPE::SRV | TYPE::TXT | TYPE::A | TYPE::AAAA)) => Kind::Own(of),
        _ => return None,
    };
    let name = text(&question.qname)?;
    Some(Question { name, kind, unicast: question.unicast_response })
}

fn record(record: &ResourceRecord<'_>) -> Option<Record> {
    if record.class != CLASS::IN {
        return None;
    }
    let data = match &record.rdata {
        RData::PTR(PTR(name)) => Data::Ptr(text(name)?),
        RData::SRV(srv) => Data::Srv { port: srv.port, host: text(&srv.target)? },
        RData::A(a) => Data::Address { ip: IpAddr::V4(a.address.into()), scope: 0 },
        RData::AAAA(aaaa) => Data::Address { ip: IpAddr::V6(aaaa.address.into()), scope: 0 },
        RData::TXT(strings) => Data::Text(String::try_from(strings.clone()).ok()?.into_bytes()),
        _ => return None,
    };
    Some(Record { name: text(&record.name)?, ttl: record.ttl, data })
}

/// Says of which interface the link-local addresses are that were heard there.
pub(super) fn set_scope(records: &mut [Record], index: u32) {
    for record in records {
        if let Data::Address { ip: IpAddr::V6(ip), scope } = &mut record.data
            && ip.is_unicast_link_local()
        {
            *scope = index;
        }
    }
}

/// The name with its dots; none if it could not be told from another, or is no text.
fn text(name: &Name<'_>) -> Option<String> {
    let mut text = String::with_capacity(64);
    for label in name.as_bytes() {
        let label = std::str::from_utf8(label).ok()?;
        if label.contains('.') {
            return None;
        }
        text.push_str(label);
        text.push('.');
    }
    Some(text)
}

// ===== writing =====

/// A question to all.
pub(super) fn query(name: &str, kind: Kind) -> Result<Vec<u8>, String> {
    let mut message = Message::new_query(0);
    message.questions.push(asked(name, kind)?);
    plain(&message)
}

/// Asks whether the instance's name is anybody's, and says what is about to be announced.
///
/// go-micro asks for PTR here, which nobody answers, nor do its own nodes. This asks for all there
/// is, as RFC 6762 has it in section 8.1, which they do answer.
pub(super) fn probe(instance: &Instance) -> Result<Vec<u8>, String> {
    let mut message = Message::new_query(0);
    message.questions.push(asked(&instance.name, Kind::Any)?);
    message.name_servers = vec![srv(instance, TTL, (0, 0))?, txt(instance, TTL)?];
    plain(&message)
}

/// Tells all of an instance, or with a TTL of 0 that it is gone.
pub(super) fn announcement(instance: &Instance, ttl: u32) -> Result<Vec<u8>, String> {
    let mut message = Message::new_reply(0);
    message.answers = own(instance, ttl)?;
    plain(&message)
}

/// The answer to a question about a service, or about one instance of it. There is one instance to
/// a packet: go-micro's reader takes the last of several. It also wants the question again.
pub(super) fn answer(id: u16, question: &Question, of: &Instance) -> Result<Vec<u8>, String> {
    let mut answers = Vec::with_capacity(4);
    if question.name == of.service {
        let service = PTR(name(&of.name)?);
        answers.push(rr(&of.service, TTL, RData::PTR(service))?);
    }
    answers.extend(own(of, TTL)?);
    reply(id, question, answers)
}

/// The answer to the question for all services: one service, as an instance of `_services` at a
/// port and an address that are none.
pub(super) fn listing(id: u16, question: &Question, service: &str) -> Result<Vec<u8>, String> {
    let instance = Instance {
        name: format!("{service}.{SERVICES}"),
        service: SERVICES.to_owned(),
        host: format!("{service}.{SERVICES}"),
        port: 9999,
        ip: IpAddr::from([0, 0, 0, 0]),
        scope: 0,
        text: Vec::new(),
    };
    answer(id, question, &instance)
}

/// The service in such an answer.
pub(super) fn listed(instance: &str) -> Option<&str> {
    instance.strip_suffix(SERVICES)?.strip_suffix('.').filter(|service| !service.is_empty())
}

/// What an instance says of itself, as records.
pub(super) fn records(instance: &Instance, ttl: u32) -> Vec<Record> {
    let record = |name: &str, data| Record { name: name.to_owned(), ttl, data };
    vec![
        record(&instance.name, srv_data(instance)),
        record(&instance.host, Data::Address { ip: instance.ip, scope: instance.scope }),
        record(&instance.name, Data::Text(instance.text.clone())),
    ]
}

/// What a probe says of an instance.
pub(super) fn claims(instance: &Instance) -> Vec<Data> {
    vec![srv_data(instance), Data::Text(instance.text.clone())]
}

fn srv_data(instance: &Instance) -> Data {
    Data::Srv { port: instance.port, host: instance.host.clone() }
}

fn asked(of: &str, kind: Kind) -> Result<Asked<'_>, String> {
    let kind = match kind {
        Kind::Ptr => QTYPE::TYPE(TYPE::PTR),
        Kind::Any => QTYPE::ANY,
        Kind::Own(of) => QTYPE::TYPE(of),
    };
    Ok(Asked::new(name(of)?, kind, QCLASS::CLASS(CLASS::IN), false))
}

fn own(instance: &Instance, ttl: u32) -> Result<Vec<ResourceRecord<'_>>, String> {
    let address = match instance.ip {
        IpAddr::V4(ip) => RData::A(A { address: ip.into() }),
        IpAddr::V6(ip) => RData::AAAA(AAAA { address: ip.into() }),
    };
    // go-micro's priority and weight.
    Ok(vec![srv(instance, ttl, (10, 1))?, rr(&instance.host, ttl, address)?, txt(instance, ttl)?])
}

fn srv(
    instance: &Instance,
    ttl: u32,
    (priority, weight): (u16, u16),
) -> Result<ResourceRecord<'_>, String> {
    let target = name(&instance.host)?;
    let srv = SRV { priority, weight, port: instance.port, target };
    rr(&instance.name, ttl, RData::SRV(srv))
}

fn txt(instance: &Instance, ttl: u32) -> Result<ResourceRecord<'_>, String> {
    let mut strings = TXT::new();
    for string in instance.text.chunks(255) {
        strings.add_char_string(CharacterString::new(string).map_err(|e| e.to_string())?);
    }
    rr(&instance.name, ttl, RData::TXT(strings))
}

fn rr<'a>(of: &'a str, ttl: u32, data: RData<'a>) -> Result<ResourceRecord<'a>, String> {
    Ok(ResourceRecord::new(name(of)?, CLASS::IN, ttl, data))
}

/// By its bytes: the text may have what would be an escape elsewhere.
fn name(text: &str) -> Result<Name<'_>, String> {
    let labels = text.strip_suffix('.').unwrap_or(text).split('.');
    let labels: Result<Vec<_>, _> = labels.map(|label| Label::new(label.as_bytes())).collect();
    let name = Name::new_with_labels(&labels.map_err(|error| format!("`{text}`: {error}"))?);
    Ok(name)
}

fn reply(
    id: u16,
    question: &Question,
    answers: Vec<ResourceRecord<'_>>,
) -> Result<Vec<u8>, String> {
    let mut message = Message::new_reply(id);
    message.set_flags(PacketFlag::AUTHORITATIVE_ANSWER);
    message.questions.push(asked(&question.name, question.kind)?);
    message.answers = answers;
    fits(message.build_bytes_vec_compressed())
}

/// go-micro compresses no names in what it sends to all.
fn plain(message: &Message<'_>) -> Result<Vec<u8>, String> {
    fits(message.build_bytes_vec())
}

fn fits(bytes: simple_dns::Result<Vec<u8>>) -> Result<Vec<u8>, String> {
    let bytes = bytes.map_err(|error| error.to_string())?;
    if bytes.len() > MAX_PACKET {
        return Err(format!("{} bytes do not fit into a datagram", bytes.len()));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
