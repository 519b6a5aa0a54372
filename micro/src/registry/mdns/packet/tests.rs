use super::{
    super::{
        super::{Node, format::gomicro},
        text,
        vectors::{Captured, ID, Raw, captured, captured_instance},
    },
    *,
};

fn asked_for(name: &str, kind: Kind) -> Question {
    Question { name: name.to_owned(), kind, unicast: false }
}

fn response(bytes: &[u8]) -> Vec<Record> {
    match read(bytes) {
        Ok(Packet::Response(records)) => records,
        other => panic!("a response: {other:?}"),
    }
}

#[test]
fn every_packet_of_a_real_go_micro_is_read() {
    let Captured { probes, announcements, queries, goodbye, answer } = captured();
    let instance = captured_instance();
    let name = instance.name.clone();
    for probe in probes {
        let Ok(Packet::Query(query)) = read(&probe) else { panic!("a probe is a query") };
        assert_eq!((query.id, &query.questions[..]), (0x3ca4, &[asked_for(&name, Kind::Ptr)][..]));
        let claimed: Vec<_> = query.claims.iter().map(|claim| claim.data.clone()).collect();
        assert_eq!(claimed, claims(&instance));
        assert!(query.claims.iter().all(|claim| claim.name == name && claim.ttl == TTL));
    }
    for announcement in announcements {
        assert_eq!(response(&announcement), records(&instance, TTL));
    }
    assert_eq!(response(&goodbye), records(&instance, 0));
    for (bytes, id) in queries.iter().zip([0x137e, 0]) {
        let questions = vec![asked_for("echo.v1.micro.", Kind::Ptr)];
        assert_eq!(read(bytes), Ok(Packet::Query(Query { id, questions, claims: Vec::new() })));
    }
    let ptr = Record { name: "echo.v1.micro.".to_owned(), ttl: TTL, data: Data::Ptr(name) };
    let mut answered = vec![ptr];
    answered.extend(records(&instance, TTL));
    assert_eq!(response(&answer), answered);
}

#[test]
fn the_captured_node_is_what_it_said() {
    let node = captured_instance().node().unwrap();
    assert_eq!((node.id.as_str(), node.service.as_str()), (ID, "echo.v1"));
    assert_eq!((node.address.as_str(), node.version.as_str()), ("127.0.0.1:7950", "latest"));
    assert!(node.is_grpc() && node.metadata["registry"] == "mdns");
    let names: Vec<_> = node.endpoints.iter().map(|endpoint| endpoint.name.as_str()).collect();
    assert_eq!(names, ["Echo.Chat", "Echo.Count", "Echo.Describe", "Echo.Say", "Echo.Sum"]);
    let rich = node.endpoints[2].request.as_ref().unwrap();
    assert_eq!((rich.kind.as_str(), rich.values.len()), ("Rich", 13));
}

#[test]
fn a_nodes_text_is_written_as_go_writes_it() {
    let instance = captured_instance();
    let json = text::decode(&instance.text).unwrap();
    let node = instance.node().unwrap();
    let written = gomicro::encode_text(&node).unwrap();
    assert_eq!(String::from_utf8(written), String::from_utf8(json), "to the byte, but for zlib");
    let ours = Instance::of(&node).unwrap();
    assert_eq!(ours.node(), Ok(node));
    assert_eq!((ours.name, ours.service), (instance.name, instance.service));
    assert_eq!((ours.port, ours.ip), (instance.port, instance.ip));
}

#[test]
fn what_we_send_is_go_micros_to_the_byte() {
    let Captured { probes, announcements, queries, goodbye, answer: answered } = captured();
    let instance = captured_instance();
    assert_eq!(query("echo.v1.micro.", Kind::Ptr).unwrap(), queries[1]);
    assert_eq!(announcement(&instance, TTL).unwrap(), announcements[0]);
    assert_eq!(announcement(&instance, 0).unwrap(), goodbye);

    // Its probes have an id, and ask for PTR.
    let mut expected = probes[0].clone();
    expected[..2].fill(0);
    let kind = 12 + instance.name.len() + 1;
    assert_eq!(expected[kind..kind + 2], [0, 12]);
    expected[kind + 1] = 255;
    assert_eq!(probe(&instance).unwrap(), expected);

    let question = asked_for("echo.v1.micro.", Kind::Ptr);
    let bytes = answer(0, &question, &instance).unwrap();
    assert_eq!(Raw::read(&bytes), Raw::read(&answered));
}

#[test]
fn an_answer_repeats_id_and_question() {
    let instance = captured_instance();
    for kind in [Kind::Any, Kind::Own(TYPE::SRV), Kind::Own(TYPE::TXT)] {
        let raw = Raw::read(&answer(7, &asked_for(&instance.name, kind), &instance).unwrap());
        let code = match kind {
            Kind::Any => 255,
            Kind::Own(TYPE::SRV) => 33,
            _ => 16,
        };
        assert_eq!((raw.id, raw.flags), (7, 0x8400));
        assert_eq!(raw.questions, [(instance.name.clone(), code, 1)]);
        let kinds: Vec<_> = raw.records[0].iter().map(|record| record.kind).collect();
        assert_eq!(kinds, [33, 1, 16], "of the instance, and no PTR");
    }
}

#[test]
fn a_service_is_listed_at_a_port_that_is_none() {
    let raw = Raw::read(&listing(0, &asked_for(SERVICES, Kind::Ptr), "echo.v1").unwrap());
    let name = "echo.v1._services.micro.";
    assert_eq!(raw.questions, [(SERVICES.to_owned(), 12, 1)]);
    let told: Vec<_> =
        raw.records[0].iter().map(|record| (record.name.as_str(), record.kind)).collect();
    assert_eq!(told, [(SERVICES, 12), (name, 33), (name, 1), (name, 16)]);
    assert_eq!(raw.records[0][0].data, name.as_bytes());
    assert_eq!(raw.records[0][1].data[4..6], 9999u16.to_be_bytes());
    assert_eq!(raw.records[0][2].data, [0; 4]);
    assert_eq!((listed(name), listed(SERVICES), listed("a.micro.")), (Some("echo.v1"), None, None));
}

#[test]
fn an_address_of_ipv6_is_an_aaaa_record() {
    let node = Node::new("a", "a-1", "[fd00::1]:80");
    let instance = Instance::of(&node).unwrap();
    let bytes = announcement(&instance, TTL).unwrap();
    assert_eq!(Raw::read(&bytes).records[0][1].kind, 28);
    assert_eq!(response(&bytes), records(&instance, TTL));
}

#[test]
fn what_lies_is_refused_and_says_why() {
    let answer = captured().answer;
    let change = |changes: &[(usize, u8)]| {
        let mut bytes = answer.clone();
        for (at, byte) in changes {
            bytes[*at] = *byte;
        }
        bytes
    };
    // The first record's name is a pointer, at 31.
    assert_eq!(answer[31..33], [0xc0, 0x0c]);
    for (bytes, named) in [
        (Vec::new(), "its 0 bytes are no header"),
        (answer[..11].to_vec(), "its 11 bytes are no header"),
        (answer[..200].to_vec(), "malformed"),
        (change(&[(4, 0xff)]), "promises more"),
        (change(&[(6, 0xff), (7, 0xff)]), "promises more"),
        (change(&[(32, 31)]), "malformed"),
        (change(&[(31, 0xff), (32, 0xff)]), "malformed"),
        (change(&[(12, 64)]), "malformed"),
        (change(&[(41, 0xff)]), "malformed"),
        (change(&[(2, 0x8c)]), "not 0"),
        (change(&[(3, 3)]), "not 0"),
    ] {
        let why = read(&bytes).unwrap_err();
        assert!(why.contains(named), "{why} lacks {named}");
    }
}

#[test]
fn what_is_not_ours_to_read_is_passed_over() {
    let instance = captured_instance();
    let mut message = Message::new_reply(0);
    let foreign = "printer.local.";
    let opt = rr("x.micro.", TTL, RData::NULL(99, simple_dns::rdata::NULL::new(b"x").unwrap()));
    message.answers.push(opt.unwrap());
    let labels = [Label::new(&b"a.b"[..]).unwrap(), Label::new(&b"micro"[..]).unwrap()];
    let dotted = PTR(Name::new_with_labels(&labels));
    message.answers.push(rr(foreign, TTL, RData::PTR(dotted)).unwrap());
    let binary = [Label::new(&[0xff_u8][..]).unwrap()];
    let mut unnamed = srv(&instance, TTL, (10, 1)).unwrap();
    unnamed.name = Name::new_with_labels(&binary);
    message.answers.push(unnamed);
    message.answers.push(srv(&instance, TTL, (10, 1)).unwrap().with_cache_flush(true));
    assert_eq!(response(&plain(&message).unwrap()), records(&instance, TTL)[..1]);
}
