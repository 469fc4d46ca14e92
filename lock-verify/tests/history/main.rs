//! What is recorded is read again as it was, whatever happened to the writer.

#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

mod arbitrary;

use std::{fs, time::Duration};

use arbitrary::any_event;
use lock_core::{FencingToken, Moment, OwnerId};
use lock_verify::history::{Event, F, History, Kind, Process, Recorder, Why, read, to_edn};
use proptest::prelude::*;

fn at(nanos: u64) -> Moment {
    Moment::from_nanos(nanos)
}

fn asked(time: u64, process: u32, call: u64) -> Event {
    Event::invoke(at(time), Process::Client(process), call, F::Acquire).lock("mail").owner(OwnerId::from_u128(7))
}

proptest! {
    #[test]
    fn an_event_survives_its_line(event in any_event()) {
        let line = serde_json::to_string(&event).unwrap();
        prop_assert!(!line.contains('\n'));
        prop_assert_eq!(serde_json::from_str::<Event>(&line).unwrap(), event);
    }

    #[test]
    fn its_edn_is_one_balanced_line(event in any_event()) {
        let line = to_edn(&event);
        prop_assert!(!line.chars().any(char::is_control), "{line:?}");
        let (mut depth, mut inside, mut escaped) = (0_i32, false, false);
        for c in line.chars() {
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '"' => inside = !inside,
                '{' | '[' if !inside => depth += 1,
                '}' | ']' if !inside => depth -= 1,
                _ => {}
            }
        }
        prop_assert_eq!((depth, inside), (0, false));
    }

    /// However the events are dealt out to files, they come back by time, then process, then place.
    #[test]
    fn files_are_merged_in_order(times in prop::collection::vec((0_u32..4, 0_u64..20), 1..60)) {
        let folder = tempfile::tempdir().unwrap();
        let files: Vec<_> = (0..4).map(|process| folder.path().join(format!("{process}.jsonl"))).collect();
        let mut expected = Vec::new();
        for process in 0..4 {
            let recorder = Recorder::to_file(&files[process as usize]).unwrap();
            let mut mine: Vec<u64> = times.iter().filter(|(whose, _)| *whose == process).map(|(_, time)| *time).collect();
            mine.sort_unstable();
            for (call, time) in (0_u64..).zip(mine) {
                let event = asked(time, process, call);
                recorder.record(event.clone());
                expected.push(event);
            }
            recorder.finish().unwrap();
        }
        expected.sort_by_key(|event| (event.time, event.process));
        let read = read(&files).unwrap();
        prop_assert_eq!(read.history.events(), &expected[..]);
        prop_assert!(read.torn.is_empty());
    }

    /// Cut anywhere, a file gives all the events before the cut and tells of it.
    #[test]
    fn a_torn_end_costs_one_event(events in 1_u64..20, cut in 0.0_f64..1.0) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.jsonl");
        let recorder = Recorder::to_file(&file).unwrap();
        (0..events).for_each(|call| recorder.record(asked(call, 1, call)));
        let bytes = fs::read(&file).unwrap();
        let cut = (bytes.len() as f64 * cut) as usize;
        fs::write(&file, &bytes[..cut]).unwrap();
        let ends: Vec<usize> = bytes.iter().enumerate().filter(|(_, b)| **b == b'\n').map(|(place, _)| place).collect();
        // A line that lacks nothing but its end is whole.
        let whole = ends.iter().filter(|end| **end <= cut).count();
        let torn = cut > 0 && bytes[cut - 1] != b'\n' && !ends.contains(&cut);
        let read = read(&[&file]).unwrap();
        prop_assert_eq!((read.history.events().len(), !read.torn.is_empty()), (whole, torn));
    }
}

#[test]
fn edn_is_as_jepsen_writes_it() {
    let event = asked(123, 3, 4).ok(at(456)).token(FencingToken::new(9)).ttl(Duration::from_secs(1));
    assert_eq!(
        to_edn(&event),
        "{:process 3, :type :ok, :f :acquire, :value {:call 4, :lock \"mail\", \
         :owner \"00000000000000000000000000000007\", :token 9, :ttl 1000000000}, :time 456}"
    );
    let fault = Event::invoke(at(5), Process::Nemesis, 0, F::Fault).fault("kill").clients(vec![1, 2]);
    assert_eq!(
        to_edn(&fault),
        "{:process :nemesis, :type :info, :f :fault, :value {:call 0, :clients [1 2], :fault \"kill\"}, :time 5}"
    );
}

/// What the reader says to a file of these lines.
fn refused(lines: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.jsonl");
    fs::write(&file, lines).unwrap();
    let told = read(&[&file]).unwrap_err().to_string();
    told.strip_prefix(&format!("{}", folder.path().display())).unwrap_or(&told).to_owned()
}

#[test]
fn errors_say_file_line_and_what_is_wrong() {
    let good = serde_json::to_string(&asked(1, 1, 1)).unwrap();
    for (bad, told) in [
        ("\n".to_owned(), "EOF while parsing a value"),
        ("{\"time\":2}\n".to_owned(), "missing field `process`"),
        (good.replace("\"lock\"", "\"lokc\"") + "\n", "unknown field `lokc`"),
        (good.replace("acquire", "aquire") + "\n", "unknown variant `aquire`"),
        (good.replace("\"process\":1", "\"process\":\"me\"") + "\n", "expected a client's number or \"nemesis\""),
        (good.replace("07\"", "\"") + "\n", "32 hex digits"),
        (good[..20].to_owned() + "\n" + &good + "\n", "EOF while parsing"),
        (good.clone() + "\n", "begins a second time"),
        (good.replace("\"call\":1", "\"call\":2").replace("invoke", "ok") + "\n", "lacks token"),
        (good.replace("\"call\":1", "\"call\":2").replace("invoke", "fail") + "\n", "ends without having begun"),
    ] {
        let told_by = refused(&format!("{good}\n{bad}"));
        assert!(told_by.starts_with("/a.jsonl:2: ") && told_by.contains(told), "{bad}: {told_by}");
    }
    assert!(read(&["/nowhere/a.jsonl"]).unwrap_err().to_string().starts_with("/nowhere/a.jsonl: "));
}

#[test]
fn a_file_is_written_by_one_process_of_one_run() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.jsonl");
    let _first = Recorder::to_file(&file).unwrap();
    assert!(Recorder::to_file(&file).is_err());
}

#[test]
fn threads_record_whole_lines() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.jsonl");
    let recorder = Recorder::to_file(&file).unwrap();
    std::thread::scope(|scope| {
        for process in 0..8 {
            let recorder = recorder.clone();
            scope.spawn(move || (0..500).for_each(|call| recorder.record(asked(call, process, call))));
        }
    });
    recorder.finish().unwrap();
    assert_eq!(read(&[&file]).unwrap().history.events().len(), 4_000);
}

#[test]
fn calls_are_put_together() {
    let first = asked(1, 1, 1);
    let queued =
        Event::new(at(2), Process::Client(1), 1, Kind::Ok, F::Queued).lock("mail").owner(OwnerId::from_u128(7));
    let second = asked(3, 1, 2);
    let events = vec![first.clone(), queued, second.clone(), second.fail(at(4), Why::Held), first.info(at(5))];
    let history = History::new(events).unwrap();
    let ends: Vec<_> = history.calls().iter().map(|call| (call.invoke, call.end)).collect();
    assert_eq!(ends, [(0, Some(4)), (2, Some(3))]);
    assert_eq!(history.call_of(1).unwrap().invoke, 0);
}
