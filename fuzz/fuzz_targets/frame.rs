//! A stream of requests that nobody judges: however it is cut, what comes out is what came in. The first byte says where it is cut.
#![no_main]

use sftpproxy::stream::requests::Requests;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((at, stream)) = data.split_first() else { return };
    let (mut requests, mut out) = (Requests::new(None), Vec::new());
    for part in stream.chunks(usize::from(*at) + 1) {
        let mut buffer = part.to_vec();
        let result = requests.pass(&mut buffer, None, &mut |_| ());
        out.extend(buffer);
        if result.is_err() {
            break;
        }
    }
    assert!(stream.starts_with(&out));
});
