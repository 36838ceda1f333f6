//! `coffer run` and `coffer exec`: a command's input, output, end and surroundings.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on has failed"
)]

use std::io::Read;

use agent_protocol::{Exec, Exit, Reply, Request, Status};
use host_bridge::{
    Host as _, Paths,
    agent::{Incoming, Operation, OperationReader},
    keeper::KeeperClient,
};
use rustix::process::Signal;
use tests::{Host, Session, cases, noise, wait_until};

#[test]
fn a_command_in_a_fresh_sandbox() {
    cases!(Host::new(); the_guests_kernel_answers, an_exit_code_comes_back, input_is_read, output_is_whole);
}

fn the_guests_kernel_answers(host: &Host) {
    let said = host
        .coffer(["run", "--name", "first", "--", "uname", "-a"])
        .end()
        .code(0);
    assert!(
        said.text().starts_with("Linux first ") && said.text().ends_with(" GNU/Linux"),
        "{said}"
    );
    assert_eq!(said.stderr, "");
}

fn an_exit_code_comes_back(host: &Host) {
    host.coffer(["run", "--", "sh", "-c", "exit 7"]).end().code(7);
}

fn input_is_read(host: &Host) {
    host.coffer(["run", "-i", "--", "wc", "-l"])
        .input("1\n2\n3\n")
        .end()
        .says("3");
}

fn output_is_whole(host: &Host) {
    let ended = host
        .coffer(["run", "--", "head", "-c", "50000000", "/dev/urandom"])
        .end()
        .code(0);
    assert_eq!(ended.stdout.len(), 50_000_000);
}

#[test]
fn a_command_in_a_session() {
    let session = Host::new().up("work", &["--env", "SESSION=all", "--memory", "256M"]);
    cases!(session;
        the_exit_code_says_how_it_ended,
        a_time_limit_ends_it,
        what_it_says_and_what_it_complains_of_are_apart,
        fifty_megabytes_go_in_and_come_out,
        input_nobody_reads_does_not_matter,
        output_nobody_reads_ends_it,
        output_read_slowly_holds_it_back,
        it_has_the_variables_it_was_given,
        it_starts_where_and_as_whom_it_was_told,
        an_interrupt_reaches_it,
        a_second_interrupt_ends_one_that_does_not_listen,
        what_it_leaves_running_does_not_keep_us,
        it_ends_with_our_own_end,
        out_of_memory_is_told_from_a_kill,
    );
}

fn the_exit_code_says_how_it_ended(session: &Session) {
    session.sh("exit 7").end().code(7);
    session.sh("kill -TERM $$").end().code(128 + 15);
    session.sh("kill -KILL $$").end().code(128 + 9);
    session
        .exec(&[], ["no-such-command"])
        .end()
        .complains(127, "no-such-command", "");
    session
        .exec(&[], ["/etc/passwd"])
        .end()
        .complains(126, "/etc/passwd", "");
    session
        .exec(&["--user", "nobody-here"], ["true"])
        .end()
        .complains(125, "nobody-here", "");
    session
        .exec(&["--workdir", "/no/such"], ["true"])
        .end()
        .complains(125, "/no/such", "");
    let typed = ["exec", session.name(), "--no-such-option"];
    session
        .host()
        .coffer(typed)
        .end()
        .complains(2, "--no-such-option", "exec");
}

fn a_time_limit_ends_it(session: &Session) {
    let limit = ["--timeout", "300ms"];
    let ended = session.exec(&limit, ["sleep", "1000"]).end().code(124);
    assert!(ended.stderr.contains("--timeout"), "{ended}");
    session
        .exec(
            &limit,
            ["sh", "-c", "trap '' TERM; sleep 1000 & wait; sleep 1000"],
        )
        .end()
        .code(124);
}

fn what_it_says_and_what_it_complains_of_are_apart(session: &Session) {
    let ended = session
        .sh("echo out; echo err >&2; printf '\\000\\377'")
        .end()
        .code(0);
    assert_eq!(
        (&ended.stdout[..], &ended.stderr[..]),
        (&b"out\n\x00\xff"[..], "err\n")
    );
}

fn fifty_megabytes_go_in_and_come_out(session: &Session) {
    let sent = noise(50_000_000);
    let ended = session.exec(&["-i"], ["cat"]).input(sent.clone()).end().code(0);
    assert!(ended.stdout == sent, "{} bytes came back", ended.stdout.len());
}

fn input_nobody_reads_does_not_matter(session: &Session) {
    session
        .exec(&["-i"], ["head", "-c", "3"])
        .input("abc".repeat(1 << 20))
        .end()
        .says("abc");
    session.exec(&["-i"], ["true"]).open_input().end().code(0);
    session
        .sh("cat; echo end")
        .input("not sent without -i")
        .end()
        .says("end");
}

fn output_nobody_reads_ends_it(session: &Session) {
    let piped = ["bash", "-c", "\"$@\" | head -n 1; exit ${PIPESTATUS[0]}", "bash"];
    let ended = session
        .exec(&[], ["yes", "endless"])
        .under(piped)
        .end()
        .code(128 + 13);
    assert_eq!((ended.text().as_str(), ended.stderr.as_str()), ("endless", ""));
    session
        .sh("until ! pgrep -x yes; do sleep 0.05; done")
        .end()
        .code(0);
}

fn output_read_slowly_holds_it_back(session: &Session) {
    let running = session.exec(&[], ["yes", "slowly"]).start();
    running.wait_for("slowly");
    running.signal(Signal::STOP);
    let worked = "cut -d' ' -f14,15 /proc/$(pgrep -x yes)/stat";
    let worked = || session.sh(worked).end().code(0).text();
    wait_until("it stands still", 30, || worked() == worked());
    running.signal(Signal::KILL);
    running.end().code(-9);
}

fn it_has_the_variables_it_was_given(session: &Session) {
    let variables = session.exec(&["-e", "MINE=a b=c", "-e", "PASSED", "-e", "MISSING"], ["env"]);
    let said = variables.env("PASSED", "through").end().code(0).text();
    let has = |line: &str| said.lines().any(|found| found == line);
    for line in [
        "SESSION=all",
        "MINE=a b=c",
        "PASSED=through",
        "HOME=/sessions/work",
        "USER=agent",
    ] {
        assert!(has(line), "{line} is not in {said}");
    }
    assert!(
        !said.contains("MISSING") && !said.contains("XDG_STATE_HOME"),
        "{said}"
    );
}

fn it_starts_where_and_as_whom_it_was_told(session: &Session) {
    session.sh("pwd; id -un").end().says("/sessions/work\nagent");
    session
        .exec(&["--workdir", "/usr/bin"], ["pwd"])
        .end()
        .says("/usr/bin");
    session
        .exec(&["--user", "root"], ["sh", "-c", "id -u; echo $HOME"])
        .end()
        .says("0\n/root");
    session
        .exec(&["--user", "33"], ["id", "-un"])
        .end()
        .says("www-data");
    session.sh("sudo -n id -u").end().says("0");
}

fn an_interrupt_reaches_it(session: &Session) {
    let waits = "trap 'echo caught; exit 3' INT; echo ready; sleep 1000 & wait";
    let running = session.sh(waits).start();
    running.wait_for("ready");
    running.signal(Signal::INT);
    assert_eq!(running.end().code(3).text(), "ready\ncaught");
    let running = session.sh("echo ready; exec sleep 1000").start();
    running.wait_for("ready");
    running.signal(Signal::TERM);
    running.end().code(128 + 15);
}

fn a_second_interrupt_ends_one_that_does_not_listen(session: &Session) {
    let stays = "trap 'echo stays' INT; echo ready; while :; do sleep 1000 & wait; done";
    let running = session.sh(stays).start();
    running.wait_for("ready");
    running.signal(Signal::INT);
    running.wait_for("stays");
    running.signal(Signal::INT);
    running.end().code(128 + 2);
    session
        .sh("until ! pgrep -f 'echo [s]tays'; do sleep 0.05; done")
        .end()
        .code(0);
}

fn what_it_leaves_running_does_not_keep_us(session: &Session) {
    session
        .sh("sleep 1000 & echo started")
        .deadline(30)
        .end()
        .says("started");
    session
        .sh("setsid sleep 1000 & echo started")
        .deadline(30)
        .end()
        .says("started");
    session
        .exec(&[], ["python3", "-c", DAEMON])
        .deadline(30)
        .end()
        .says("parent");
}

/// Forks twice and keeps the standard streams, as careless daemons do.
const DAEMON: &str = "
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(1000)
    os._exit(0)
print('parent')
";

fn it_ends_with_our_own_end(session: &Session) {
    let running = session.sh("echo $$; exec sleep 1000").start();
    running.wait_for("\n");
    let pid = running.said();
    running.signal(Signal::KILL);
    running.end().code(-9);
    session
        .sh(&format!("until ! kill -0 {}; do sleep 0.05; done", pid.trim()))
        .end()
        .code(0);
}

fn out_of_memory_is_told_from_a_kill(session: &Session) {
    let hog = "x = []\nwhile True: x.append(b'x' * (1 << 20))";
    let ended = session.exec(&[], ["python3", "-c", hog]).end().code(128 + 9);
    assert!(
        ended.stderr.contains("out of memory") && ended.stderr.contains("--memory"),
        "{ended}"
    );
    let killed = session.sh("kill -KILL $$").end().code(128 + 9);
    assert_eq!(killed.stderr, "");
}

#[test]
fn many_commands() {
    let session = Host::new().up("many", &["--image", "small", "--memory", "2G"]);
    cases!(session; two_hundred_at_once, hundreds_one_after_the_other);
}

/// Without a program of ours for each: what is tried is the guest's agent, the machine and the keeper.
fn two_hundred_at_once(session: &Session) {
    let client = Client::of(session);
    let all: Vec<_> = (0..200)
        .map(|_| client.start(&["cat"]).split().unwrap())
        .collect();
    for (i, (mut reader, mut writer)) in all.into_iter().enumerate() {
        let input = i.to_string();
        let mut rest = input.as_bytes();
        writer.send_all(|room| rest.read(room)).unwrap();
        assert_eq!(end(&mut reader), (0, input));
    }
}

fn hundreds_one_after_the_other(session: &Session) {
    let client = Client::of(session);
    for i in 0..300 {
        let (mut reader, _writer) = client.start(&["echo", &i.to_string()]).split().unwrap();
        assert_eq!(end(&mut reader), (0, format!("{i}\n")));
    }
}

/// The keeper's client, as `coffer exec` has it.
struct Client {
    runtime: tokio::runtime::Runtime,
    keeper: KeeperClient,
}

impl Client {
    fn of(session: &Session) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let (paths, name) = (
            Paths::below(session.host().root()),
            session.name().parse().unwrap(),
        );
        let keeper = runtime.block_on(KeeperClient::connect(&paths, &name)).unwrap();
        Client { runtime, keeper }
    }

    fn start(&self, argv: &[&str]) -> Operation {
        let mut exec = Exec::new(argv.iter().map(|word| word.as_bytes().to_vec()));
        exec.stdin = true;
        self.runtime
            .block_on(self.keeper.start(Request::Exec(exec)))
            .unwrap()
    }
}

fn end(reader: &mut OperationReader) -> (i32, String) {
    let mut said = Vec::new();
    loop {
        match reader.receive().unwrap().unwrap() {
            Incoming::Stdout(data) => said.extend_from_slice(data),
            Incoming::Reply(Reply::Exited(Exit {
                status: Status::Code(code),
                ..
            })) => {
                return (code, String::from_utf8(said).unwrap());
            }
            Incoming::Reply(Reply::Started { .. }) => {}
            other => panic!("{other:?}"),
        }
    }
}
