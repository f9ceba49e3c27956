//! Content that is told as it passes: every byte once, at its place in the file, however the streams are split.

use super::*;

/// What is told of content: bytes by their place.
#[derive(Default)]
struct Seen(Vec<(u64, Vec<u8>)>);

impl Seen {
    fn hear(&mut self, heard: &Heard<'_>) {
        if let Heard::Content(content) = heard {
            match self.0.last_mut().filter(|(offset, bytes)| offset + bytes.len() as u64 == content.offset) {
                Some((_, bytes)) => bytes.extend_from_slice(content.bytes),
                None => self.0.push((content.offset, content.bytes.to_vec())),
            }
        }
    }
}

#[test]
fn each_byte_of_write_and_data_is_told_once_at_its_place_however_the_streams_are_split() {
    let policy = Policy::parse(|name| (name == "max_file_size").then_some("3000")).unwrap().map(Arc::new).unwrap();
    let content: Vec<u8> = (0..1000_u32).map(|number| (number * 7) as u8).collect();
    let up: Vec<u8> = [
        write(2, "h", 0, &content),
        request("stat", 9, &[b"/x"], &[]),
        // Refused, so not told.
        write(3, "h", 2500, &content),
        write(4, "h", 1000, &content[..500]),
        write(5, "h", 1500, b""),
        read(6, "h", 100, 300),
    ]
    .concat();
    let mut data = vec![DATA, 0, 0, 0, 6];
    put_string(&mut data, &content[100..400]);
    let ok = |id: u32| {
        let mut packet = Vec::new();
        crate::sftp::reply::put_status(&mut packet, id, OK, "");
        packet
    };
    let down: Vec<u8> = [ok(2), framed(&data), ok(4), ok(5), ok(9)].concat();
    for piece in [1, 2, 7, 33, 1000, 1 << 20] {
        let mut requests = Requests::judged(None, Arc::clone(&policy)).telling_content(true);
        let mut replies = Replies::new(Some(Arc::clone(&policy))).telling_content(true);
        let (mut ledger, now) = (Ledger::default(), Instant::now());
        let (mut written, mut seen) = (Seen::default(), Seen::default());
        let mut handle = vec![HANDLE, 0, 0, 0, 1];
        put_string(&mut handle, b"h");
        let begun = [([init(), open(1, "/f", 0x1b)].concat(), [framed(&[VERSION, 0, 0, 0, 3]), framed(&handle)].concat())];
        for (up, down) in begun.into_iter().chain([(up.clone(), down.clone())]) {
            for part in up.chunks(piece) {
                let books = Books { ledger: &mut ledger, now };
                requests.pass(&mut part.to_vec(), Some(books), &mut |heard| written.hear(&heard)).unwrap();
            }
            for part in down.chunks(piece) {
                replies.pass(&mut part.to_vec(), Books { ledger: &mut ledger, now }, &mut |heard| seen.hear(&heard)).unwrap();
            }
        }
        let whole = [&content[..], &content[..500]].concat();
        assert_eq!(written.0, [(0, whole)], "in pieces of {piece}");
        assert_eq!(seen.0, [(100, content[100..400].to_vec())], "in pieces of {piece}");
    }
}
