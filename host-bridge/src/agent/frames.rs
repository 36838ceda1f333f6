use agent_protocol::{Channel, Header, Limit, decode};
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::{Error, Result, error::Context};

/// One message and not a byte more: what follows may belong to another reader.
pub(crate) async fn read_message<M: DeserializeOwned>(
    from: &mut (impl AsyncRead + Unpin),
    limit: Limit,
) -> Result<M> {
    let act = "connection ended";
    let mut head = [0; Header::SIZE];
    from.read_exact(&mut head).await.act(act)?;
    let header = Header::parse(head, limit)?;
    if header.channel() != Channel::Message {
        return Err(Error::Unexpected {
            what: "data where a message belongs",
        });
    }
    let mut payload = vec![0; header.len()];
    from.read_exact(&mut payload).await.act(act)?;
    Ok(decode(&payload)?)
}
