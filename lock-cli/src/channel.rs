//! What the keeper (`leasehold run`) and its watchdog say to each other over a socket.
//!
//! Frames of one fixed size: a frame is a single small write, so that a side that is frozen or killed in
//! between leaves either a whole frame or the end of the stream.

use std::{
    io::{self, IoSlice, IoSliceMut, Read},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    time::Duration,
};

use leasehold::Moment;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};

/// The size of a frame in bytes: a tag and three numbers.
pub(crate) const FRAME: usize = 32;

/// One frame's bytes.
pub(crate) type Frame = [u8; FRAME];

/// What the watchdog is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Start the command. Sent once, first, with the command's stdin and stdout beside it.
    Start(Limits),
    /// The lease now ends then.
    Deadline(Moment),
    /// Pass this signal on to the command's group.
    Signal(i32),
    /// The lease is over: end the command and all that came of it.
    End,
}

/// When the command is to be over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// When the lease ends.
    pub(crate) deadline: Moment,
    /// From SIGTERM to SIGKILL.
    pub(crate) kill_after: Duration,
    /// How long before the deadline the last SIGKILL is sent.
    pub(crate) margin: Duration,
}

/// What the watchdog tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Report {
    /// The command runs, in this process group.
    Started(i32),
    /// The command could not be started, for this reason of the system's (an `errno`).
    NotStarted(i32),
    /// The command was stopped by this signal (job control).
    Stopped(i32),
    /// The deadline came near without a new one: the command is being ended.
    Overdue,
    /// The command itself is over; others of its group may still be there.
    Ended(Ended),
    /// Nobody is left. The last report.
    Gone,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// By itself, with this exit code.
    Exited(i32),
    /// By this signal.
    Signalled(i32),
    /// The system didn't tell.
    Unknown,
}

impl Order {
    /// As a frame.
    pub(crate) fn to_frame(self) -> Frame {
        match self {
            Self::Start(limits) => {
                frame(1, [limits.deadline.as_nanos(), nanos(limits.kill_after), nanos(limits.margin)])
            }
            Self::Deadline(at) => frame(2, [at.as_nanos(), 0, 0]),
            Self::Signal(number) => frame(3, [widen(number), 0, 0]),
            Self::End => frame(4, [0; 3]),
        }
    }

    /// From a frame; `None` if no keeper of this version writes it.
    pub(crate) fn from_frame(frame: &Frame) -> Option<Self> {
        let (tag, [a, b, c]) = numbers(frame);
        Some(match tag {
            1 => Self::Start(Limits {
                deadline: Moment::from_nanos(a),
                kill_after: Duration::from_nanos(b),
                margin: Duration::from_nanos(c),
            }),
            2 => Self::Deadline(Moment::from_nanos(a)),
            3 => Self::Signal(narrow(a)?),
            4 => Self::End,
            _ => return None,
        })
    }
}

impl Report {
    /// As a frame.
    pub(crate) fn to_frame(self) -> Frame {
        match self {
            Self::Started(group) => frame(101, [widen(group), 0, 0]),
            Self::NotStarted(errno) => frame(102, [widen(errno), 0, 0]),
            Self::Stopped(signal) => frame(103, [widen(signal), 0, 0]),
            Self::Overdue => frame(104, [0; 3]),
            Self::Ended(Ended::Exited(code)) => frame(105, [widen(code), 0, 0]),
            Self::Ended(Ended::Signalled(signal)) => frame(106, [widen(signal), 0, 0]),
            Self::Ended(Ended::Unknown) => frame(108, [0; 3]),
            Self::Gone => frame(107, [0; 3]),
        }
    }

    /// From a frame; `None` if no watchdog of this version writes it.
    pub(crate) fn from_frame(frame: &Frame) -> Option<Self> {
        let (tag, [a, ..]) = numbers(frame);
        Some(match tag {
            101 => Self::Started(narrow(a)?),
            102 => Self::NotStarted(narrow(a)?),
            103 => Self::Stopped(narrow(a)?),
            104 => Self::Overdue,
            105 => Self::Ended(Ended::Exited(narrow(a)?)),
            106 => Self::Ended(Ended::Signalled(narrow(a)?)),
            107 => Self::Gone,
            108 => Self::Ended(Ended::Unknown),
            _ => return None,
        })
    }
}

fn frame(tag: u64, numbers: [u64; 3]) -> Frame {
    let mut bytes = [0; FRAME];
    let all = std::iter::once(tag).chain(numbers);
    for (place, number) in bytes.chunks_exact_mut(8).zip(all) {
        place.copy_from_slice(&number.to_le_bytes());
    }
    bytes
}

fn numbers(frame: &Frame) -> (u64, [u64; 3]) {
    let mut all = [0_u64; 4];
    for (number, bytes) in all.iter_mut().zip(frame.chunks_exact(8)) {
        *number = bytes.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
    }
    let [tag, a, b, c] = all;
    (tag, [a, b, c])
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

fn widen(number: i32) -> u64 {
    u64::from(number.cast_unsigned())
}

fn narrow(number: u64) -> Option<i32> {
    u32::try_from(number).ok().map(u32::cast_signed)
}

/// Sends the first order with the command's stdin and stdout beside it (`SCM_RIGHTS`, unix(7)).
pub(crate) fn send_start(channel: &UnixStream, limits: Limits, stdio: [BorrowedFd<'_>; 2]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    if !beside.push(SendAncillaryMessage::ScmRights(&stdio)) {
        return Err(io::Error::other("no room for two descriptors"));
    }
    let frame = Order::Start(limits).to_frame();
    let sent = rustix::net::sendmsg(channel, &[IoSlice::new(&frame)], &mut beside, SendFlags::NOSIGNAL)?;
    if sent == FRAME { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// Receives the first order, the command's stdin and its stdout.
pub(crate) fn receive_start(channel: &UnixStream) -> io::Result<(Limits, OwnedFd, OwnedFd)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    let mut frame: Frame = [0; FRAME];
    let received = rustix::net::recvmsg(
        channel.as_fd(),
        &mut [IoSliceMut::new(&mut frame)],
        &mut beside,
        RecvFlags::CMSG_CLOEXEC | RecvFlags::WAITALL,
    )?;
    let mut descriptors = beside.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    let mut descriptors = descriptors.next().into_iter().flatten();
    match (Order::from_frame(&frame), descriptors.next(), descriptors.next()) {
        (Some(Order::Start(limits)), Some(stdin), Some(stdout)) if received.bytes == FRAME => {
            Ok((limits, stdin, stdout))
        }
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "not a start order")),
    }
}

/// Reads the next order; `None` once the keeper is gone (or is none of this version).
pub(crate) fn next_order(mut channel: &UnixStream) -> Option<Order> {
    let mut frame: Frame = [0; FRAME];
    channel.read_exact(&mut frame).ok()?;
    Order::from_frame(&frame)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_comes_out_as_it_went_in() {
        let limits = Limits {
            deadline: Moment::from_nanos(u64::MAX - 5),
            kill_after: Duration::from_millis(750),
            margin: Duration::from_nanos(1),
        };
        for order in [Order::Start(limits), Order::Deadline(Moment::from_nanos(1 << 40)), Order::Signal(15), Order::End]
        {
            assert_eq!(Order::from_frame(&order.to_frame()), Some(order));
        }
        for report in [
            Report::Started(4_194_304),
            Report::NotStarted(2),
            Report::Stopped(20),
            Report::Overdue,
            Report::Ended(Ended::Exited(255)),
            Report::Ended(Ended::Signalled(9)),
            Report::Ended(Ended::Unknown),
            Report::Gone,
        ] {
            assert_eq!(Report::from_frame(&report.to_frame()), Some(report));
        }
        assert_eq!(Order::from_frame(&Report::Gone.to_frame()), None);
    }

    #[test]
    fn descriptors_travel_beside_the_start() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (mut reader, writer) = std::io::pipe().unwrap();
        let limits =
            Limits { deadline: Moment::from_nanos(7), kill_after: Duration::ZERO, margin: Duration::from_millis(50) };
        send_start(&ours, limits, [reader.as_fd(), writer.as_fd()]).unwrap();
        drop(writer);
        let (received, _stdin, stdout) = receive_start(&theirs).unwrap();
        assert_eq!(received, limits);
        io::Write::write_all(&mut std::fs::File::from(stdout), b"x").unwrap();
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "x");
        drop(ours);
        assert_eq!(next_order(&theirs), None);
    }
}
