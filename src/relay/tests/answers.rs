//! Answers of the router itself among the replies of the upstream, between legs that do by chance all that a leg may.

use super::*;

/// Bytes of a packet of this test's protocol; those that begin with `R` are refused, all others are echoed by the upstream.
const PACKET: usize = 10;

/// Takes whole packets, answers those that are refused.
#[derive(Default)]
struct Refusing {
    held: Vec<u8>,
    answers: Vec<u8>,
}

impl Watch for Refusing {
    fn pass(&mut self, buffer: &mut Vec<u8>) -> Result<(), String> {
        self.held.append(buffer);
        let whole = self.held.len() / PACKET * PACKET;
        for packet in self.held.drain(..whole).collect::<Vec<_>>().chunks(PACKET) {
            if packet[0] == b'R' { &mut self.answers } else { &mut *buffer }.extend_from_slice(packet);
        }
        Ok(())
    }

    fn answers(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.answers)
    }
}

/// Counts what passes; before the first packet there is no place for an answer.
#[derive(Default)]
struct Counting(usize);

impl Watch for Counting {
    fn pass(&mut self, buffer: &mut Vec<u8>) -> Result<(), String> {
        self.0 += buffer.len();
        Ok(())
    }

    fn at_boundary(&self) -> bool {
        self.0 > 0 && self.0.is_multiple_of(PACKET)
    }
}

fn packets(chance: &mut Chance) -> Vec<u8> {
    let (count, refused) = (1 + chance.below(20_000), 1 + chance.below(6));
    let packet = |number: usize, chance: &mut Chance| {
        let kind = if number > 0 && chance.one_in(refused) { 'R' } else { 'P' };
        format!("{kind}{number:09}").into_bytes()
    };
    (0..count).flat_map(|number| packet(number, chance)).collect()
}

#[test]
fn every_request_is_answered_once_by_the_router_or_the_upstream_and_no_packet_is_torn() {
    for seed in 0..40 {
        let mut chance = Chance::new(seed);
        let sent = packets(&mut chance);
        let (down_leg, client) = Memory::new(Side::Downstream, habit(&mut chance), seed);
        let (up_leg, upstream) = Memory::new(Side::Upstream, habit(&mut chance), seed + 1000);
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            let control = Control::new().unwrap();
            let (down, up) = halves(&control);
            let (mut down_leg, mut up_leg) = (down_leg, up_leg);
            let heard = thread::scope(|scope| {
                scope.spawn(|| watched(&control, up, &mut up_leg, &mut Counting::default()));
                scope.spawn(|| watched(&control, down, &mut down_leg, &mut Refusing::default()));
                scope.spawn(|| say(&client, &sent, Chance::new(seed)));
                scope.spawn(|| echo(&upstream));
                hear(&client, Chance::new(seed + 1))
            });
            let _ = sender.send((sent, heard));
        });
        let (sent, heard) = receiver.recv_timeout(LIMIT).unwrap_or_else(|_| panic!("seed {seed}: the session does not end"));
        let sorted = |bytes: &[u8]| {
            let mut all: Vec<_> = bytes.chunks(PACKET).map(<[u8]>::to_vec).collect();
            all.sort_unstable_by(|one, two| one[1..].cmp(&two[1..]));
            all
        };
        assert_eq!(heard.first(), Some(&b'P'), "seed {seed}: an answer before the upstream's first packet");
        assert!(sorted(&heard) == sorted(&sent), "seed {seed}: {} bytes sent, {} heard", sent.len(), heard.len());
    }
}

fn watched(control: &Control, half: Half, leg: &mut Memory, watch: &mut dyn Watch) {
    let side = half.side;
    half.run(leg, watch, &|| None);
    let _ = leg.socket.shutdown(Shutdown::Both);
    control.done(side);
}

/// Sends back what comes; nothing that is refused may come.
fn echo(mut peer: &UnixStream) {
    let (mut piece, mut come) = (vec![0; 60_000], 0);
    while let Ok(count @ 1..) = peer.read(&mut piece) {
        for (at, byte) in piece[..count].iter().enumerate() {
            assert!(!(come + at).is_multiple_of(PACKET) || *byte == b'P', "a refused packet went on");
        }
        come += count;
        peer.write_all(&piece[..count]).unwrap();
    }
    peer.shutdown(Shutdown::Write).unwrap();
}
