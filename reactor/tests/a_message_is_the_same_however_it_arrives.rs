//! Segments are not messages: cut anywhere, joined by the thousand, read a byte at a time, the conversation is the same (`partial-read`, `partial-write`).

mod support;

use std::io::{Read, Write};

use reactor::Config;
use support::lines::{Lines, Mail, Told, wait_for};
use support::{pattern, start, until};

#[test]
fn a_request_cut_at_every_byte_is_answered_the_same() {
    let (lines, heard) = Lines::new();
    let server = start(Config::default(), lines);
    let requests = b"first line\nsecond\n\nfourth, the third is empty\n";
    for cut in 1..requests.len() {
        let mut client = server.connect();
        let before = server.stats.bytes_read.get();
        client.write_all(&requests[..cut]).unwrap();
        // The first part has been read and its rest kept before the second is sent: two arrivals, surely.
        until("the first part is read", || server.stats.bytes_read.get() == before + cut as u64);
        client.write_all(&requests[cut..]).unwrap();
        let mut back = vec![0; requests.len()];
        client.read_exact(&mut back).unwrap();
        assert_eq!(back, requests, "cut at {cut}");
    }
    drop(heard);
}

#[test]
fn a_request_that_comes_byte_by_byte_is_answered_once_it_is_whole() {
    let server = start(Config::default(), Lines::silent());
    let mut client = server.connect();
    for &byte in b"one byte at a time\nand another\n" {
        let before = server.stats.bytes_read.get();
        client.write_all(&[byte]).unwrap();
        until("the byte is read", || server.stats.bytes_read.get() == before + 1);
    }
    let mut back = [0; 31];
    client.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"one byte at a time\nand another\n");
    drop(client);
    until("nothing is kept", || server.stats.connections_open.get() == 0);
    assert_eq!(server.stats.leased_bytes.get(), 0);
}

#[test]
fn a_thousand_small_messages_in_one_segment_are_answered_in_order() {
    let server = start(Config::default(), Lines::silent());
    let mut client = server.connect();
    let all: Vec<u8> = (0..1000).flat_map(|i| format!("message {i}\n").into_bytes()).collect();
    client.write_all(&all).unwrap();
    let mut back = vec![0; all.len()];
    client.read_exact(&mut back).unwrap();
    assert_eq!(String::from_utf8_lossy(&back), String::from_utf8_lossy(&all));
    let limits = Config::default().limits;
    let exits_min = 1 + (1000 - limits.first_visit_messages_max) / limits.visit_messages_max;
    assert!(server.stats.budget_exits.get() >= u64::from(exits_min), "1,000 messages are more than one visit's share");
}

#[test]
fn messages_that_straddle_every_buffer_size_come_back_whole() {
    // 1 KiB, 4 KiB, 16 KiB and 64 KiB are the sizes of leases; the last is also that of the scratch.
    let server = start(Config::default(), Lines::silent());
    let mut client = server.connect();
    for length in [1022, 1023, 1024, 1025, 4094, 4095, 4096, 4097, 16_383, 16_384, 16_385, 60_000, 65_534, 65_535] {
        for cut in [1, length / 2, length] {
            let mut line = pattern(length);
            line.push(b'\n');
            let before = server.stats.bytes_read.get();
            client.write_all(&line[..cut]).unwrap();
            until("the first part is read", || server.stats.bytes_read.get() == before + cut as u64);
            client.write_all(&line[cut..]).unwrap();
            let mut back = vec![0; line.len()];
            client.read_exact(&mut back).unwrap();
            assert!(back == line, "{length} bytes cut at {cut}");
        }
    }
}

#[test]
fn a_message_longer_than_the_largest_buffer_ends_the_connection_and_no_other() {
    let (lines, heard) = Lines::new();
    let server = start(Config::default(), lines);
    let mut other = server.connect();
    support::ask(&mut other, "hello");
    let mut client = server.connect();
    let _ = client.write_all(&pattern(70_000));
    let reason = wait_for(&heard, |told| if let Told::Closed(_, reason) = told { Some(reason) } else { None });
    assert_eq!(reason, reactor::CloseReason::MessageTooLong);
    support::ask(&mut other, "still here");
}

#[test]
fn a_reader_that_takes_one_byte_at_a_time_gets_every_byte() {
    let server = start(Config::default(), Lines::silent());
    let mut client = server.connect();
    let bytes = 20 << 20; // More than both kernels' buffers, so that the server's writes fall short.
    client.write_all(format!("many {bytes}\n").as_bytes()).unwrap();
    until("the server cannot write", || server.stats.short_writes.get() > 0);
    let mut one = [0];
    let expected = pattern(bytes);
    for (i, &byte) in expected.iter().enumerate().take(100_000) {
        client.read_exact(&mut one).unwrap();
        assert_eq!(one[0], byte, "byte {i}");
    }
    let mut rest = vec![0; bytes - 100_000];
    client.read_exact(&mut rest).unwrap();
    assert!(rest == expected[100_000..], "the rest differs");
}

#[test]
fn what_is_left_in_the_kernel_while_paused_is_there_after_the_pause() {
    let (lines, heard) = Lines::new();
    let server = start(Config::default(), lines);
    for bytes in [10, 5_000, 60_000, 300_000] {
        let mut client = server.connect();
        client.write_all(b"pause\n").unwrap();
        let token = wait_for(&heard, |told| if let Told::Paused(token) = told { Some(token) } else { None });
        let mut all: Vec<u8> = (0..bytes / 10).flat_map(|i| format!("{i:09}\n").into_bytes()).collect();
        // A second pause in the middle, with input kept and in the kernel.
        all.splice(0..0, *b"pause\n");
        client.write_all(&all).unwrap();
        server.mail(token, Mail::Resume).unwrap();
        wait_for(&heard, |told| (told == Told::Paused(token)).then_some(()));
        server.mail(token, Mail::Resume).unwrap();
        let mut back = vec![0; all.len() - 6];
        client.read_exact(&mut back).unwrap();
        assert!(back == all[6..], "{bytes} bytes over a pause differ");
    }
}

#[test]
fn a_paused_sender_is_held_by_the_kernel_and_not_by_our_memory() {
    let (lines, heard) = Lines::new();
    let server = start(Config::default(), lines);
    let mut client = server.connect();
    client.write_all(b"pause\n").unwrap();
    let token = wait_for(&heard, |told| if let Told::Paused(token) = told { Some(token) } else { None });
    let all: Vec<u8> = (0..2_000_000).flat_map(|i| format!("{i:09}\n").into_bytes()).collect();
    let expected = all.clone();
    let mut writer = client.try_clone().unwrap();
    let writer = std::thread::spawn(move || writer.write_all(&all).unwrap());
    let mut clock = server.connect();
    support::ask(&mut clock, "hello");
    assert!(server.stats.bytes_read.get() <= 6 + 65_536 + 6, "{} bytes were read of a paused peer", server.stats.bytes_read.get());
    server.mail(token, Mail::Resume).unwrap();
    let mut back = vec![0; expected.len()];
    client.read_exact(&mut back).unwrap();
    assert!(back == expected, "the echo differs");
    writer.join().unwrap();
}
