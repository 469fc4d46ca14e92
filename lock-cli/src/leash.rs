//! The keeper's end of the channel to its watchdog.

use std::{
    ffi::OsString,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{net::UnixStream as StdUnixStream, process::CommandExt},
    },
    process::{Child, Command, Stdio},
    time::Duration,
};

use nix::{
    sys::{
        prctl::set_child_subreaper,
        signal::{Signal, kill},
        wait::{WaitPidFlag, waitpid},
    },
    unistd::Pid,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixStream, unix::OwnedWriteHalf},
    sync::{mpsc, watch},
};

use crate::{
    channel::{FRAME, Limits, Order, Report, send_start},
    group::{group_is_empty, signal_group, signal_strays},
    launch::ourselves,
    store::HIDDEN_URL,
};

/// The first argument of the binary's hidden mode.
pub(crate) const WATCHDOG_MODE: &str = "__watchdog";

/// How many signals may be on their way. More are of no use to a watchdog that doesn't pass them on.
const SIGNALS: usize = 64;

/// A running watchdog.
#[derive(Debug)]
pub(crate) struct Leash {
    child: Child,
    /// The lease's last news: a deadline, or its end. Only the latest matters.
    lease: watch::Sender<Option<Order>>,
    signals: mpsc::Sender<i32>,
    reports: mpsc::UnboundedReceiver<Report>,
}

impl Leash {
    /// Starts a watchdog, and has it start the command. From here on stdin and stdout are the command's alone.
    pub(crate) fn start(
        command: &[OsString],
        environment: Vec<(&'static str, String)>,
        limits: Limits,
    ) -> io::Result<Self> {
        let (ours, theirs) = StdUnixStream::pair()?;
        let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
        // If the watchdog dies before us, the command and its descendants become our children.
        set_child_subreaper(true)?;
        let child = Command::new(ourselves())
            .arg0("leasehold")
            .arg(WATCHDOG_MODE)
            .args(command)
            .envs(environment)
            .env_remove(HIDDEN_URL)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(null.try_clone()?)
            .process_group(0)
            .spawn()?;
        send_start(&ours, limits, [io::stdin().as_fd(), io::stdout().as_fd()])?;
        // Whoever reads what the command writes sees its end when the command closes it, not when we end.
        rustix::stdio::dup2_stdin(&null)?;
        rustix::stdio::dup2_stdout(&null)?;

        ours.set_nonblocking(true)?;
        let (mut incoming, orders) = UnixStream::from_std(ours)?.into_split();
        let (lease, news) = watch::channel(None);
        let (signals, passed_on) = mpsc::channel(SIGNALS);
        tokio::spawn(write_orders(orders, news, passed_on));
        let (sender, reports) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let mut frame = [0; FRAME];
            while incoming.read_exact(&mut frame).await.is_ok() {
                let Some(report) = Report::from_frame(&frame) else { return };
                if sender.send(report).is_err() {
                    return;
                }
            }
        });
        Ok(Self { child, lease, signals, reports })
    }

    /// The next report; `None` when the watchdog is gone. Cancel safe.
    pub(crate) async fn report(&mut self) -> Option<Report> {
        self.reports.recv().await
    }

    /// Sends an order, without waiting for a watchdog that doesn't read. One that is gone is noticed where its
    /// reports are read.
    pub(crate) fn order(&self, order: Order) {
        match order {
            Order::Signal(number) => drop(self.signals.try_send(number)),
            Order::Start(_) | Order::Deadline(_) | Order::End => drop(self.lease.send_replace(Some(order))),
        }
    }

    /// Does the watchdog's work in its place, when it died or doesn't answer: kills everything that came of the
    /// command, and returns when nobody of its group is left.
    pub(crate) async fn kill_all(&mut self, group: Option<Pid>) {
        let watchdog = Pid::from_raw(self.child.id().cast_signed());
        let _ = kill(watchdog, Signal::SIGKILL);
        loop {
            if let Some(group) = group {
                signal_group(group, Signal::SIGKILL);
            }
            signal_strays(Pid::this(), group, Signal::SIGKILL);
            while waitpid(None, Some(WaitPidFlag::WNOHANG)).is_ok_and(|status| status.pid().is_some()) {}
            if group.is_none_or(group_is_empty) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Writes the orders as the watchdog has room for them, until there is nobody to write for or to.
async fn write_orders(
    mut channel: OwnedWriteHalf,
    mut lease: watch::Receiver<Option<Order>>,
    mut signals: mpsc::Receiver<i32>,
) {
    loop {
        let order = tokio::select! {
            biased;
            changed = lease.changed() => match (changed, *lease.borrow_and_update()) {
                (Ok(()), Some(order)) => order,
                _ => return,
            },
            Some(number) = signals.recv() => Order::Signal(number),
        };
        if channel.write_all(&order.to_frame()).await.is_err() {
            return;
        }
    }
}
