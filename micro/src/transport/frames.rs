//! Where HTTP/2 frames begin in a byte stream, without decoding them.

/// Length of a frame's head (RFC 9113, section 4.1).
const HEAD: usize = 9;

/// A cursor over a byte stream that comes in arbitrary pieces.
#[derive(Debug, Default)]
pub(super) struct Frames {
    head: [u8; HEAD],
    filled: usize,
    /// Payload of the current frame that is still to come.
    left: usize,
}

/// A piece of one frame.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Part<'a> {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    /// Whether this is the frame's first piece.
    pub(super) is_start: bool,
    /// Whether this is the frame's last piece.
    pub(super) is_end: bool,
    pub(super) payload: &'a [u8],
}

/// Frame types (RFC 9113, section 6).
pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const SETTINGS: u8 = 4;
pub(super) const GOAWAY: u8 = 7;
/// The flag of SETTINGS that acknowledge ours.
pub(super) const ACK: u8 = 1;

impl Frames {
    /// A cursor that skips `count` bytes before the first frame: a client's preface has 24.
    pub(super) fn after(count: usize) -> Self {
        // As the payload of a frame of no known type.
        Self { head: [0, 0, 0, u8::MAX, 0, 0, 0, 0, 0], filled: HEAD, left: count }
    }

    /// The next piece in `bytes`, which is moved past it; `None` when all is looked at.
    pub(super) fn next<'a>(&mut self, bytes: &mut &'a [u8]) -> Option<Part<'a>> {
        let is_start = self.left == 0;
        if is_start {
            if self.filled == HEAD {
                self.filled = 0;
            }
            let taken = bytes.len().min(HEAD - self.filled);
            self.head[self.filled..self.filled + taken].copy_from_slice(&bytes[..taken]);
            self.filled += taken;
            *bytes = &bytes[taken..];
            if self.filled < HEAD {
                return None;
            }
            let [a, b, c, ..] = self.head;
            self.left = u32::from_be_bytes([0, a, b, c]) as usize;
        }
        let (payload, rest) = bytes.split_at(bytes.len().min(self.left));
        if payload.is_empty() && !is_start {
            return None;
        }
        *bytes = rest;
        self.left -= payload.len();
        let [_, _, _, kind, flags, a, b, c, d] = self.head;
        let stream = u32::from_be_bytes([a, b, c, d]) & 0x7fff_ffff;
        Some(Part { kind, flags, stream, is_start, is_end: self.left == 0, payload })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    }

    /// Every frame as (kind, flags, stream, payload), put together from its pieces.
    fn frames(mut frames: Frames, pieces: &[&[u8]]) -> Vec<(u8, u8, u32, Vec<u8>)> {
        let mut seen: Vec<(u8, u8, u32, Vec<u8>)> = Vec::new();
        let mut is_open = false;
        for mut piece in pieces.iter().copied() {
            while let Some(part) = frames.next(&mut piece) {
                assert_eq!(part.is_start, !is_open);
                if part.is_start {
                    seen.push((part.kind, part.flags, part.stream, Vec::new()));
                }
                seen.last_mut().unwrap().3.extend(part.payload);
                is_open = !part.is_end;
            }
            assert!(piece.is_empty());
        }
        seen
    }

    #[test]
    fn frames_are_found_however_the_bytes_are_cut() {
        let expected = vec![
            (SETTINGS, 0, 0, vec![]),
            (HEADERS, 4, 1, b"block".to_vec()),
            (DATA, 1, 0x7fff_ffff, vec![7; 300]),
            (GOAWAY, 0, 0, b"12345678bye".to_vec()),
        ];
        let bytes: Vec<u8> = expected
            .iter()
            .flat_map(|(kind, flags, stream, payload)| frame(*kind, *flags, *stream, payload))
            .collect();
        for size in 1..=bytes.len() {
            let pieces: Vec<_> = bytes.chunks(size).collect();
            assert_eq!(frames(Frames::default(), &pieces), expected, "in pieces of {size}");
        }
    }

    #[test]
    fn a_preface_is_skipped() {
        let bytes = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(SETTINGS, 0, 0, b"")];
        let mut cursor = Frames::after(24);
        let mut bytes: &[u8] = &bytes.concat();
        assert_eq!(cursor.next(&mut bytes).unwrap().kind, u8::MAX);
        assert_eq!(cursor.next(&mut bytes).unwrap().kind, SETTINGS);
        assert_eq!(cursor.next(&mut bytes), None);
    }

    #[test]
    fn the_reserved_bit_is_no_part_of_the_stream_id() {
        let bytes = frame(HEADERS, 0, 0x8000_0003, b"");
        assert_eq!(frames(Frames::default(), &[&bytes])[0].2, 3);
    }
}
