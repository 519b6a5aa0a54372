//! What a TXT record holds: JSON, deflated, in hex.

use std::fmt::Write as _;

use miniz_oxide::{deflate::compress_to_vec_zlib, inflate::decompress_to_vec_zlib_with_limit};

/// zlib's own default, and Go's.
const LEVEL: u8 = 6;

/// The longest JSON taken, in bytes. Real ones take a few KiB, and with hundreds of methods a few
/// hundred; what a packet can carry inflates to a thousand times its size.
pub(super) const MAX_JSON: usize = 512 * 1024;

/// JSON as go-micro puts it into the record, to be cut into strings of 255.
pub(super) fn encode(json: &[u8]) -> Vec<u8> {
    let deflated = compress_to_vec_zlib(json, LEVEL);
    let mut hex = String::with_capacity(deflated.len() * 2);
    for byte in deflated {
        let _ = write!(hex, "{byte:02x}");
    }
    hex.into_bytes()
}

/// The JSON in the record's strings, joined.
///
/// # Errors
/// What is wrong, in words.
pub(super) fn decode(hex: &[u8]) -> Result<Vec<u8>, String> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let deflated = hex
        .chunks(2)
        .map(|pair| match pair {
            [high, low] => Some(digit(high)? << 4 | digit(low)?),
            _ => None,
        })
        .collect::<Option<Vec<_>>>()
        .ok_or("its text is not hex")?;
    decompress_to_vec_zlib_with_limit(&deflated, MAX_JSON).map_err(|error| {
        if error.output.len() >= MAX_JSON {
            format!("its text inflates to more than {MAX_JSON} bytes")
        } else {
            "its text is not zlib's".to_owned()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Go deflated it: three strings of one record, the last of two characters.
    const GO: &str = concat!(
        "789c8d91414f84400c85ff4bcf1b7f00d78dd1cb5e24f1623c5468d8894367ec945542f8efdb415c50387862e6cb7bf3",
        "faca002752ac51118a01de24bc93400167d5080788123454c11b69245646841a97547a236dcdc94822b94c9e59a1829c",
        "6210fd41e3014ad3b88af2c3e47df80ce26b933e932417d8b047a5a486eeb98",
        "ec1b126285e064bfbe832b7d118dbec7fccfea7195b581f77e805bd9da61766dbf4b9c9ad80e36625e4cefbf175ccf56",
        "c744eb44d8cbedfe47db36d5a4b2961f3afc076d9bedd66ff831029c95d89fd94642bdcdbc531b0d2d76a0d0bf895b35",
        "bab54216c17efedfec7ba1a30d7c89ac2fe7147b09df7784605ab7505f6decb",
        "d7",
    );

    #[test]
    fn what_go_deflated_is_read() {
        let json = String::from_utf8(decode(GO.as_bytes()).unwrap()).unwrap();
        assert!(json.starts_with(r#"{"Metadata":{"broker":"http","protocol":"grpc","#), "{json}");
        assert!(json.contains(r#""Service":"helloworld","Version":"latest","Endpoints":[{"#));
        assert_eq!(decode(&encode(json.as_bytes())).unwrap(), json.as_bytes());
    }

    #[test]
    fn what_is_none_says_why() {
        let bomb = encode(&vec![b' '; MAX_JSON + 1]);
        assert!(bomb.len() < 4096, "a bomb is small: {}", bomb.len());
        let cut = &GO.as_bytes()[..GO.len() - 8];
        for (text, named) in [
            (&b"789"[..], "not hex"),
            (b"zz", "not hex"),
            (b"", "not zlib's"),
            (b"00", "not zlib's"),
            (cut, "not zlib's"),
            (&bomb, "more than 524288 bytes"),
        ] {
            let why = decode(text).unwrap_err();
            assert!(why.contains(named), "{why} lacks {named}");
        }
        assert_eq!(decode(&encode(&vec![b' '; MAX_JSON])).unwrap().len(), MAX_JSON);
    }
}
