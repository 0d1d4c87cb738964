//! The log, with an output that the test holds shut.

use super::*;
use std::sync::mpsc::channel;
use std::time::UNIX_EPOCH;

fn record<'a>(level: Level, line: u32, args: std::fmt::Arguments<'a>) -> Record<'a> {
    Record::builder().level(level).target("test").file(Some("a.rs")).line(Some(line)).args(args).build()
}

/// Does not write before the test says so.
struct Gate {
    open: Receiver<()>,
    is_open: bool,
    out: std::sync::mpsc::Sender<String>,
}

impl Write for Gate {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.is_open {
            let _ = self.open.recv();
            self.is_open = true;
        }
        let _ = self.out.send(String::from_utf8_lossy(bytes).into_owned());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn an_output_that_nobody_reads_stops_no_one_and_what_is_lost_is_counted_and_told() {
    let (logger, writer) = Logger::new();
    let stats = logger.stats();
    let (open, gate) = channel();
    let (out, lines) = channel();
    let thread = thread::spawn(move || writer.run(&mut Gate { open: gate, is_open: false, out }));

    // More than fit. If one of these waited for the output, this would never end: the gate opens only after the last.
    let sent = LINES_MAX as u64 + 500;
    for n in 0..sent {
        logger.log(&record(Level::Info, 1, format_args!("line n={n}")));
    }
    let dropped = stats.dropped();
    // One line may be in the writer's hand, all others are in the queue or lost.
    assert!((499..=500).contains(&dropped), "{dropped}");
    open.send(()).expect("the writer lives");
    logger.flush();
    drop(logger);
    thread.join().expect("the writer ends with the logger");

    let lines: Vec<String> = lines.iter().collect();
    assert_eq!(lines.iter().filter(|line| line.contains("line n=")).count() as u64, sent - dropped);
    assert!(lines.iter().any(|line| line.contains(&format!("dropped={dropped}"))));
    assert_eq!(stats.written(), lines.len() as u64);
}

#[test]
fn errors_of_one_place_come_once_a_second_and_say_how_many_were_left_out() {
    let repetitions = Repetitions::default();
    assert_eq!(repetitions.admit(7, 0), Some(0));
    for _ in 0..1000 {
        assert_eq!(repetitions.admit(7, 0), None);
    }
    assert_eq!(repetitions.admit(8, 0), Some(0), "another place");
    assert_eq!(repetitions.admit(7, 5), Some(1000));
    assert_eq!(repetitions.admit(7, 5), None);
    assert_eq!(repetitions.admit(7, 6), Some(1));
    assert_eq!(repetitions.admit(7, 7), Some(0));
}

#[test]
fn two_threads_leave_out_all_but_one_and_count_the_rest() {
    let repetitions = Repetitions::default();
    let admitted: usize = thread::scope(|scope| {
        let threads: Vec<_> = (0..2).map(|_| scope.spawn(|| (0..10_000).filter_map(|_| repetitions.admit(1, 3)).count())).collect();
        threads.into_iter().map(|thread| thread.join().expect("it does not panic")).sum()
    });
    assert_eq!(admitted, 1);
    assert_eq!(repetitions.admit(1, 4), Some(19_999));
}

#[test]
fn information_is_never_taken_for_repetition_and_warnings_are() {
    let (logger, _writer) = Logger::new();
    let admitted = |level| (0..10).filter(|_| logger.admit(&record(level, 3, format_args!("again"))).is_some()).count();
    assert_eq!(admitted(Level::Info), 10);
    // Ten calls can fall into two seconds.
    assert!((1..=2).contains(&admitted(Level::Warn)));
}

#[test]
fn a_line_has_time_level_thread_target_and_message_and_ends_once() {
    let at = UNIX_EPOCH + Duration::from_millis(1_795_388_728_042);
    let text = line(&record(Level::Warn, 1, format_args!("slow fd=3")), 12, at, "loop-0");
    assert_eq!(text, "2026-11-22T23:05:28.042Z WARN  loop-0 test slow fd=3 suppressed=12\n");
}

#[test]
fn nobody_can_write_lines_of_their_own_or_endless_ones() {
    let hostile = format!("a\nERROR forged\r\x1b[31m{}", "x".repeat(100_000));
    let text = line(&record(Level::Info, 1, format_args!("{hostile}")), 0, UNIX_EPOCH, "t");
    assert_eq!(text.chars().filter(|c| c.is_control()).count(), 1, "the line's own end");
    assert!(text.len() < LINE_BYTES_MAX + 16);
}
