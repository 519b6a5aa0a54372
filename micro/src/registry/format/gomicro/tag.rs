//! What go-micro hangs on a node where a registry has no place for a record: a tag for each fact
//! (`t-`), for each endpoint (`e-`) and for the version (`v-`), each deflated and in hex; and the
//! older ones, in plain text behind `t=`, `e=` and `v=`.

use std::fmt::Write as _;

use miniz_oxide::{deflate::compress_to_vec_zlib, inflate::decompress_to_vec_zlib_with_limit};

use super::{
    super::{
        super::{Endpoint, Node},
        json::{MAX_LEN, parse_object, write},
    },
    decode, encode,
};

/// zlib's own default, and Go's.
const LEVEL: u8 = 6;

/// The most tags that a record is read with. Real ones have one for each method and a few more.
const MAX_TAGS: usize = 8192;

/// What tags say of a node.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::registry) struct Tagged {
    pub(in crate::registry) version: Option<String>,
    pub(in crate::registry) metadata: Vec<(String, String)>,
    pub(in crate::registry) endpoints: Vec<Endpoint>,
}

impl Tagged {
    /// Whether there is a tag of go-micro's among them at all.
    pub(in crate::registry) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The node's tags, as a go-micro node has them.
///
/// # Errors
/// A tag over 1 MiB, saying so.
pub(in crate::registry) fn encode_tags(node: &Node) -> Result<Vec<String>, String> {
    let facts = node.metadata.iter().map(|fact| Ok(tag('t', &write(&Fact(fact))?)));
    let endpoints = node.endpoints.iter().map(|it| Ok(tag('e', &encode::encode_endpoint(it)?)));
    let version = tag('v', node.version.as_bytes());
    facts.chain(endpoints).chain([Ok(version)]).collect()
}

/// What the tags say. Those of others are passed over.
///
/// # Errors
/// What is wrong with a tag that can be nobody's but go-micro's, and more tags, or more in them,
/// than a record can have.
pub(in crate::registry) fn decode_tags<'a>(
    tags: impl Iterator<Item = &'a str>,
) -> Result<Tagged, String> {
    let mut tagged = Tagged::default();
    let mut room = MAX_LEN;
    for (index, tag) in tags.enumerate() {
        if index == MAX_TAGS {
            return Err(format!("it has more than {MAX_TAGS} tags"));
        }
        let Some((kind, payload)) = payload(tag, room)? else { continue };
        room -= payload.len();
        match kind {
            't' => tagged.metadata.extend(parse_object(&payload, |object| {
                let fact = |(key, json): (&str, &super::super::json::Json<'_>)| {
                    let value = json.text().map_err(|wrong| wrong.in_field(key))?;
                    Ok((key.to_owned(), value.to_owned()))
                };
                object.iter().map(fact).collect::<Result<Vec<_>, _>>()
            })?),
            'e' => tagged.endpoints.extend(parse_object(&payload, decode::endpoint)?),
            // The first: go-micro reads no further.
            _ if tagged.version.is_none() => {
                let version = String::from_utf8(payload).map_err(|_| "its version is not UTF-8")?;
                tagged.version = Some(version);
            }
            _ => {}
        }
    }
    Ok(tagged)
}

/// One fact, as Go writes a map with one key.
struct Fact<'a>((&'a String, &'a String));

impl serde::Serialize for Fact<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map([self.0])
    }
}

fn tag(kind: char, payload: &[u8]) -> String {
    let deflated = compress_to_vec_zlib(payload, LEVEL);
    let mut tag = String::with_capacity(2 + deflated.len() * 2);
    tag.push(kind);
    tag.push('-');
    for byte in deflated {
        let _ = write!(tag, "{byte:02x}");
    }
    tag
}

/// What a tag of go-micro's holds, and of which kind it is; none for another's.
fn payload(tag: &str, room: usize) -> Result<Option<(char, Vec<u8>)>, String> {
    let mut chars = tag.chars();
    let (Some(kind @ ('t' | 'e' | 'v')), Some(form)) = (chars.next(), chars.next()) else {
        return Ok(None);
    };
    let rest = chars.as_str();
    match form {
        '=' if rest.len() > room => Err(too_much()),
        '=' => Ok(Some((kind, rest.as_bytes().to_vec()))),
        // A zlib stream as everybody writes it: deflate with a window of 32 KiB.
        '-' if rest.starts_with("78") => match unhex(rest) {
            Some(deflated) => {
                let inflated = decompress_to_vec_zlib_with_limit(&deflated, room);
                let inflated = inflated.map_err(|error| match error.output.len() >= room {
                    true => too_much(),
                    false => format!("a tag of its `{kind}-..` is not zlib's"),
                })?;
                Ok(Some((kind, inflated)))
            }
            None => Ok(None),
        },
        _ => Ok(None),
    }
}

fn too_much() -> String {
    format!("its tags hold more than {MAX_LEN} bytes")
}

fn unhex(hex: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let byte = |pair: &[u8]| match pair {
        [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    };
    hex.as_bytes().chunks(2).map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Go deflated them.
    const GO: [(&str, &str, &str); 8] = [
        ("v-789c32d433d03300040000ffff02ce00ee", "version", "1.0.0"),
        ("v-789cca492c492d2e01040000ffff08cc028e", "version", "latest"),
        ("t-789caa562a294acc2b2ec82f2a51b252ca28292950aa05040000ffff4f930768", "transport", "http"),
        ("t-789caa564a2acacf4e2d52b252ca28292950aa05040000ffff364d0600", "broker", "http"),
        ("t-789caa562a4e2d2a4b2d52b2522a2a4856aa05040000ffff30dd0597", "server", "rpc"),
        (
            "t-789caa562a4a4dcf2c2e29aa54b2524acecf2b2ecd51aa05040000ffff560f07c8",
            "registry",
            "consul",
        ),
        ("t-789caa562a28ca2fc94fcecf51b2524a2f2a4856aa05040000ffff468306d9", "protocol", "grpc"),
        // Another library's, and the older form.
        ("t={\"zone\":\"a\"}", "zone", "a"),
    ];

    fn decoded(tags: &[&str]) -> Result<Tagged, String> {
        decode_tags(tags.iter().copied())
    }

    #[test]
    fn what_go_wrote_is_read() {
        for (tag, key, value) in GO {
            let tagged = decoded(&[tag]).unwrap();
            match key {
                "version" => assert_eq!(tagged.version.as_deref(), Some(value)),
                _ => assert_eq!(tagged.metadata, [(key.to_owned(), value.to_owned())]),
            }
        }
        let endpoint = concat!(
            "e-789c8dcd310ac3300c05d0bb680e3d802f90ceed183a08f20905d9712da56082ef5e93865070874c923e5f",
            "bc95125e0bd4c8ad14d8831c5d2132dff6b823cbf14ffa66a91bb9e178dbc651574bcf30fd14c322521ea5ab",
            "a0c639285a314a6ebc6fd66a1eaa3c9d023d8c4736ae60bdf6ff3e018674b973de242a1fdf075b90"
        );
        let tagged = decoded(&[endpoint]).unwrap();
        assert_eq!(tagged.endpoints[0].name, "Greeter.SayHello");
        assert_eq!(tagged.endpoints[0].request.as_ref().unwrap().values[0].name, "name");
    }

    #[test]
    fn what_we_wrote_is_read_and_is_what_zlib_makes() {
        let mut node = Node::new("a", "a-1", "h:1");
        node.metadata.insert("zone".to_owned(), "<a> \"b\" \u{e9}".to_owned());
        node.endpoints = vec![Endpoint { name: "Greeter.Hello".to_owned(), ..Default::default() }];
        let tags = encode_tags(&node).unwrap();
        assert_eq!(
            tags[0], "t-789cab562a28ca2fc94fcecf51b2524a2f2a4856aa0500468306d9",
            "protocol=grpc, to zlib's byte"
        );
        assert_eq!(tags.last().unwrap(), "v-789ccb492c492d2e010008cc028e");
        let tagged = decode_tags(tags.iter().map(String::as_str)).unwrap();
        assert_eq!(tagged.version.as_deref(), Some("latest"));
        assert_eq!(
            tagged.metadata.into_iter().collect::<std::collections::BTreeMap<_, _>>(),
            node.metadata
        );
        assert_eq!(tagged.endpoints, node.endpoints);
    }

    #[test]
    fn tags_of_others_are_passed_over() {
        let others = [
            "",
            "e",
            "t",
            "v-",
            "v-1.2",
            "e-commerce",
            "t-shirt",
            "v-78",
            "x-789c",
            "\u{e9}-",
            "prod",
        ];
        // The first two digits of zlib's and an odd number of them, or no hex.
        let others = others.into_iter().filter(|tag| *tag != "v-78").chain(["t-789", "t-78xy"]);
        assert!(decode_tags(others).unwrap().is_empty());
    }

    #[test]
    fn what_is_broken_says_why() {
        let bomb = tag('t', &vec![b' '; MAX_LEN + 1]);
        assert!(bomb.len() < 4096, "a bomb is small: {}", bomb.len());
        let halves = tag('v', &vec![b'x'; MAX_LEN / 2 + 1]);
        let many = vec!["x"; MAX_TAGS + 1];
        for (tags, named) in [
            (&["t-789caa562a"][..], "not zlib's"),
            (&["v-78"], "not zlib's"),
            (&[&bomb], "more than 1048576 bytes"),
            (&[&halves, &halves], "more than 1048576 bytes"),
            (&many, "more than 8192 tags"),
            (&["t={\"a\":1}"], "`a` is a number"),
            (&["t=x"], "not JSON"),
            (&["e={\"name\":1}"], "`name` is a number"),
        ] {
            let why = decoded(tags).unwrap_err();
            assert!(why.contains(named), "{why} lacks {named}");
        }
    }
}
