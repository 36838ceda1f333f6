use std::time::Instant;

use agent_protocol::{Channel, Header, PortOwner, PortProtocol, Reply, decode, encode_frame};
use tokio::io::AsyncReadExt;

use super::*;
use crate::agent::Incoming;

/// The guest's side of one test.
struct Guest {
    directory: tempfile::TempDir,
    link: Link,
}

impl Guest {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let env = vec![(b"A".to_vec(), b"b".to_vec())];
        let link = Link::listen(&directory.path().join("s"), "box".into(), env).unwrap();
        link.has_folders(Vec::new());
        Guest { directory, link }
    }

    async fn dial(&self, hello: &Hello) -> UnixStream {
        let mut stream = UnixStream::connect(self.directory.path().join("s"))
            .await
            .unwrap();
        say(&mut stream, hello).await;
        stream
    }

    /// Dials, and says that the setup is in force.
    async fn control(&self) -> UnixStream {
        let mut control = self.dial(&Hello::new(Role::Control(info()))).await;
        assert!(
            matches!(hear(&mut control).await, Some(HostMessage::Welcome(setup)) if setup.session == "box")
        );
        say(&mut control, &GuestMessage::Ready).await;
        self.link.ready().await.unwrap();
        control
    }
}

fn info() -> GuestInfo {
    GuestInfo {
        kernel: "6".into(),
        ..GuestInfo::default()
    }
}

async fn say(stream: &mut UnixStream, message: &impl serde::Serialize) {
    stream
        .write_all(&encode(message, Limit::ToHost).unwrap())
        .await
        .unwrap();
}

async fn hear(stream: &mut UnixStream) -> Option<HostMessage> {
    let mut head = [0; Header::SIZE];
    stream.read_exact(&mut head).await.ok()?;
    let mut payload = vec![0; Header::parse(head, Limit::ToGuest).unwrap().len()];
    stream.read_exact(&mut payload).await.unwrap();
    Some(decode(&payload).unwrap())
}

async fn is_closed(mut stream: UnixStream) -> bool {
    let read = tokio::time::timeout(Duration::from_secs(5), stream.read(&mut [0; 16])).await;
    matches!(read, Ok(Ok(0) | Err(_)))
}

fn stat() -> Request {
    Request::Stat { path: b"/".to_vec() }
}

#[tokio::test]
async fn what_a_guest_says_of_itself_is_made_short_and_plain() {
    let guest = Guest::new();
    let boast = GuestInfo {
        kernel: "\x1b[2J".repeat(20_000),
        ..info()
    };
    let mut control = guest.dial(&Hello::new(Role::Control(boast))).await;
    say(&mut control, &GuestMessage::Ready).await;
    let kernel = guest.link.ready().await.unwrap().kernel;
    assert!(kernel.len() < 400 && !kernel.contains('\x1b'), "{kernel}");
}

#[tokio::test]
async fn a_guest_is_ready_when_it_says_so_after_the_welcome() {
    let guest = Guest::new();
    let mut control = guest.dial(&Hello::new(Role::Control(info()))).await;
    let Some(HostMessage::Welcome(setup)) = hear(&mut control).await else {
        panic!("no welcome");
    };
    assert_eq!(setup.env, [(b"A".to_vec(), b"b".to_vec())]);
    assert_eq!(guest.link.state(), LinkState::Waiting);
    say(&mut control, &GuestMessage::Ready).await;
    assert_eq!(guest.link.ready().await.unwrap(), info());
}

#[tokio::test]
async fn an_operation_gets_the_stream_dialed_for_it_with_every_byte_after_the_hello() {
    let guest = Guest::new();
    let mut control = guest.control().await;
    let dialing = async {
        let Some(HostMessage::Start { id, .. }) = hear(&mut control).await else {
            panic!("no start");
        };
        let mut stream = guest.dial(&Hello::new(Role::Stream(id))).await;
        stream
            .write_all(&encode_frame(Channel::Stdout, b"early"))
            .await
            .unwrap();
        say(&mut stream, &Reply::Done).await;
        stream
    };
    let (operation, _stream) = tokio::join!(guest.link.start(stat()), dialing);
    let (mut reader, _writer) = operation.unwrap().split().unwrap();
    assert_eq!(reader.receive().unwrap(), Some(Incoming::Stdout(b"early")));
    assert_eq!(reader.reply().unwrap(), Reply::Done);
}

#[tokio::test]
async fn a_stream_nobody_asked_for_is_closed() {
    let guest = Guest::new();
    let _control = guest.control().await;
    assert!(is_closed(guest.dial(&Hello::new(Role::Stream(StreamId(99)))).await).await);
}

#[tokio::test]
async fn a_stream_id_is_good_for_one_stream() {
    let guest = Guest::new();
    let mut control = guest.control().await;
    let dialing = async {
        let Some(HostMessage::Start { id, .. }) = hear(&mut control).await else {
            panic!("no start");
        };
        let first = guest.dial(&Hello::new(Role::Stream(id))).await;
        (first, id)
    };
    let (operation, (_first, id)) = tokio::join!(guest.link.start(stat()), dialing);
    operation.unwrap();
    assert!(is_closed(guest.dial(&Hello::new(Role::Stream(id))).await).await);
}

#[tokio::test]
async fn garbage_closes_its_connection_and_nothing_else() {
    let guest = Guest::new();
    let _control = guest.control().await;
    for garbage in [
        &[0xff; 64][..],
        b"\x05\x00\x00\x00\x01hello",
        b"\x03\x00\x00\x00\x00abc",
    ] {
        let mut stream = UnixStream::connect(guest.directory.path().join("s"))
            .await
            .unwrap();
        stream.write_all(garbage).await.unwrap();
        assert!(is_closed(stream).await, "{garbage:?}");
    }
    assert!(matches!(guest.link.state(), LinkState::Ready(_)));
}

#[tokio::test]
async fn garbage_on_the_control_connection_is_a_lost_guest() {
    let guest = Guest::new();
    let mut control = guest.control().await;
    control.write_all(&[0xff; 64]).await.unwrap();
    assert!(is_closed(control).await);
    assert!(matches!(guest.link.start(stat()).await, Err(Error::AgentGone)));
}

#[tokio::test]
async fn an_operation_under_way_fails_at_once_when_the_guest_is_lost() {
    let guest = Guest::new();
    let mut control = guest.control().await;
    let losing = async {
        hear(&mut control).await;
        drop(control);
    };
    let (operation, ()) = tokio::join!(guest.link.start(stat()), losing);
    assert!(matches!(operation, Err(Error::AgentGone)));
    assert_eq!(guest.link.state(), LinkState::Lost);
}

#[tokio::test]
async fn a_guest_that_dials_again_takes_over_from_its_former_self() {
    let guest = Guest::new();
    let former = guest.control().await;
    let mut control = guest.control().await;
    assert!(is_closed(former).await);
    guest.link.signal(StreamId(1), 15).await.unwrap();
    assert!(matches!(
        hear(&mut control).await,
        Some(HostMessage::Signal { signal: 15, .. })
    ));
}

#[tokio::test]
async fn an_agent_of_another_version_is_refused_with_its_number() {
    let guest = Guest::new();
    let hello = Hello {
        version: VERSION + 1,
        role: Role::Control(info()),
    };
    assert!(is_closed(guest.dial(&hello).await).await);
    assert!(matches!(guest.link.ready().await, Err(Error::AgentVersion { found }) if found == VERSION + 1));
}

#[tokio::test]
async fn a_setup_that_failed_is_told_and_cannot_forge_the_terminal() {
    let guest = Guest::new();
    let mut control = guest.dial(&Hello::new(Role::Control(info()))).await;
    hear(&mut control).await;
    say(
        &mut control,
        &GuestMessage::SetupFailed {
            what: "no\x1b[2Jhome".into(),
        },
    )
    .await;
    match guest.link.ready().await {
        Err(Error::SetupFailed { what }) => assert_eq!(what, "no\\u{1b}[2Jhome"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_request_too_long_for_the_guest_is_refused_here() {
    let guest = Guest::new();
    let _control = guest.control().await;
    let request = Request::Stat {
        path: vec![b'a'; agent_protocol::MAX_MESSAGE_TO_GUEST],
    };
    assert!(matches!(guest.link.start(request).await, Err(Error::TooLong(_))));
    assert!(lock(&guest.link.shared.pending).is_empty());
}

fn folder(name: &str) -> Folder {
    Folder {
        name: name.into(),
        read_only: true,
    }
}

#[tokio::test]
async fn a_guest_is_welcomed_when_its_folders_are_there_and_whatever_was_to_be_said_comes_after() {
    let directory = tempfile::tempdir().unwrap();
    let link = Link::listen(&directory.path().join("s"), "box".into(), Vec::new()).unwrap();
    let guest = Guest { directory, link };
    let mut control = guest.dial(&Hello::new(Role::Control(info()))).await;
    // Until the connection is taken there is nobody to say it to.
    while guest.link.signal(StreamId(1), 15).await.is_err() {
        tokio::task::yield_now().await;
    }
    guest.link.has_folders(vec![folder("src")]);
    match hear(&mut control).await {
        Some(HostMessage::Welcome(setup)) => assert_eq!(setup.folders, [folder("src")]),
        other => panic!("{other:?}"),
    }
    assert!(matches!(
        hear(&mut control).await,
        Some(HostMessage::Signal { .. })
    ));
}

#[tokio::test]
async fn a_guest_that_dials_again_hears_of_the_folders_there_are_then() {
    let guest = Guest::new();
    let _former = guest.control().await;
    guest.link.has_folders(vec![folder("later")]);
    let mut control = guest.dial(&Hello::new(Role::Control(info()))).await;
    match hear(&mut control).await {
        Some(HostMessage::Welcome(setup)) => assert_eq!(setup.folders, [folder("later")]),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_guest_hears_of_its_network_in_the_welcome() {
    let guest = Guest::new();
    let mut control = guest.dial(&Hello::new(Role::Control(info()))).await;
    let Some(HostMessage::Welcome(setup)) = hear(&mut control).await else {
        panic!("no welcome");
    };
    let network = setup.network.unwrap();
    assert_eq!(network.v4.to_string(), "198.18.0.2");
    assert_eq!(network, welcome::cable());
}

#[tokio::test]
async fn a_port_is_asked_after_and_the_answer_cut_short() {
    let guest = Guest::new();
    let mut control = guest.control().await;
    let answering = async {
        let Some(HostMessage::Owner {
            nonce,
            protocol: PortProtocol::Tcp,
            port: 40_000,
        }) = hear(&mut control).await
        else {
            panic!("not asked");
        };
        let owner = Some(PortOwner {
            pid: 7,
            argv: vec![vec![b'x'; 10_000]],
            operation: None,
        });
        // One that nobody asked for comes before it, as a hostile guest may have it.
        let forged = GuestMessage::Owner {
            nonce: nonce + 1,
            owner: None,
        };
        say(&mut control, &forged).await;
        say(&mut control, &GuestMessage::Owner { nonce, owner }).await;
    };
    let (owner, ()) = tokio::join!(guest.link.owner(PortProtocol::Tcp, 40_000), answering);
    assert_eq!(
        owner.unwrap().argv,
        [vec![b'x'; agent_protocol::MAX_OWNER_ARGUMENTS]]
    );
}

#[tokio::test]
async fn a_guest_that_does_not_say_whose_port_it_is_is_not_waited_for() {
    let guest = Guest::new();
    assert!(guest.link.owner(PortProtocol::Udp, 1).await.is_none());
    let mut control = guest.control().await;
    let began = Instant::now();
    assert!(guest.link.owner(PortProtocol::Udp, 1).await.is_none());
    assert!(began.elapsed() < Duration::from_secs(5));
    assert!(matches!(
        hear(&mut control).await,
        Some(HostMessage::Owner { .. })
    ));
}
