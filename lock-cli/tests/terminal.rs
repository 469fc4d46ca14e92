//! Danger: a terminal on which Ctrl-C doesn't reach the command, or that isn't given back.

#![allow(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

mod stage;

use std::{
    fs::File,
    io::{Read, Write},
    os::fd::AsFd,
    process::{Child, Command, Stdio},
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    pty::openpty,
};
use stage::{LONG, Stage, now, passed};

/// A shell on a terminal of its own, with `leasehold` as `$L` and the lock as `$LOCK`.
struct Desk {
    keys: File,
    shown: String,
    shell: Child,
}

impl Desk {
    fn new(stage: &Stage, program: &[&str]) -> Self {
        let pty = openpty(None, None).unwrap();
        let screen = |fd: &std::os::fd::OwnedFd| Stdio::from(fd.try_clone().unwrap());
        // setsid(1) from util-linux makes its stdin the controlling terminal of the new session.
        let shell = Command::new("setsid")
            .args(["--ctty", "--wait"])
            .args(program)
            .env("L", env!("CARGO_BIN_EXE_leasehold"))
            .env("LOCK", &stage.lock)
            .env("LEASEHOLD_STORE", &stage.store)
            .env("PS1", "prompt> ")
            .current_dir(stage.directory.path())
            .stdin(screen(&pty.slave))
            .stdout(screen(&pty.slave))
            .stderr(screen(&pty.slave))
            .spawn()
            .unwrap();
        Self { keys: File::from(pty.master), shown: String::new(), shell }
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    /// Reads the screen until it shows this.
    fn until(&mut self, text: &str) {
        let begun = now();
        while !self.shown.contains(text) {
            let mut some = [0; 1024];
            let mut screen = [PollFd::new(self.keys.as_fd(), PollFlags::POLLIN)];
            let news = poll(&mut screen, PollTimeout::from(5000_u16)).unwrap() > 0;
            let count = if news { self.keys.read(&mut some).unwrap_or(0) } else { 0 };
            self.shown += &String::from_utf8_lossy(&some[..count]);
            assert!(count > 0 && passed(begun) < LONG, "never shown: {text}; shown: {}", self.shown);
        }
        let at = self.shown.find(text).unwrap() + text.len();
        self.shown.drain(..at);
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}

#[test]
fn ctrl_c_reaches_the_command_and_the_terminal_comes_back() {
    let stage = Stage::new();
    // The shell doesn't handle Ctrl-C: it would end if the key reached more than the command's group. The command is
    // ready once that group (field 5 of proc_pid_stat(5)) is the terminal's (field 8).
    let script = r#"
        "$L" run "$LOCK" -- sh -c '
            trap "echo got-it; exit 9" INT
            while set -- $(cat /proc/$$/stat); [ "$5" != "$8" ]; do :; done
            sleep 100 & echo r""eady; wait; wait'
        echo "code=$?"
        read line; echo "read=$line"
    "#;
    let mut desk = Desk::new(&stage, &["sh", "-c", script]);
    desk.until("ready");
    desk.press("\x03");
    desk.until("got-it");
    desk.until("code=9");
    // Somebody in the background can't read from the terminal.
    desk.press("hello\n");
    desk.until("read=hello");
    assert!(desk.shell.wait().unwrap().success());
    assert_eq!(stage.status()["state"], "free");
}

#[test]
fn the_command_can_read_from_the_terminal() {
    let stage = Stage::new();
    let script = r#""$L" run "$LOCK" -- sh -c 'echo r''eady; read line; echo "read=$line"'; echo "code=$?""#;
    let mut desk = Desk::new(&stage, &["sh", "-c", script]);
    desk.until("ready");
    desk.press("hello\n");
    desk.until("read=hello");
    desk.until("code=0");
}

/// With stdout in a pipe the command doesn't get the terminal until it reaches for it.
#[test]
fn a_command_in_a_pipeline_gets_the_terminal_when_it_reads_from_it() {
    let stage = Stage::new();
    let script = r#""$L" run "$LOCK" -- sh -c 'echo r''eady; read line; echo "read=$line"' | cat; echo "done""#;
    let mut desk = Desk::new(&stage, &["sh", "-c", script]);
    desk.until("ready");
    desk.press("hello\n");
    desk.until("read=hello");
    desk.until("done");
}

#[test]
fn ctrl_z_gives_the_shell_its_prompt_and_fg_goes_on() {
    let stage = Stage::new();
    let mut desk = Desk::new(&stage, &["bash", "--norc", "--noprofile", "-i"]);
    desk.until("prompt> ");
    // In a file, because a shell's line editor redraws what is typed.
    let script = r#"
        while set -- $(cat /proc/$$/stat); [ "$5" != "$8" ]; do :; done
        echo ready; read line; echo "read=$line"
    "#;
    std::fs::write(stage.path("script"), script).unwrap();
    desk.press("\"$L\" run \"$LOCK\" -- sh script\n");
    desk.until("ready");
    desk.press("\x1a");
    desk.until("Stopped");
    desk.until("prompt> ");
    desk.press("fg\n");
    desk.until("LOCK");
    desk.press("hello\n");
    desk.until("read=hello");
    desk.press("echo \"code=$?\"; exit\n");
    desk.until("code=0");
}
