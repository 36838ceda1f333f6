//! A path that cannot leave its share.

use std::fmt;

/// What Linux takes for one name (`NAME_MAX`).
pub const MAX_COMPONENT: usize = 255;
/// What Linux takes for a path in one call (`PATH_MAX`). A tree can be deeper than that; what lies deeper has no
/// path here, and whoever asks refuses to work on it.
pub const MAX_PATH: usize = 4096;

/// A path relative to a share's root: components joined by `/`, none of them empty, `.` or `..`. The root is empty.
#[derive(Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RelPath(Vec<u8>);

impl RelPath {
    pub fn root() -> Self {
        RelPath(Vec::new())
    }

    pub fn parse(text: &[u8]) -> Result<Self, PathError> {
        if text.first() == Some(&b'/') {
            return Err(PathError::Absolute);
        }
        if text.is_empty() {
            return Ok(RelPath::root());
        }
        check_length(text.len())?;
        text.split(|byte| *byte == b'/').try_for_each(check_component)?;
        Ok(RelPath(text.to_vec()))
    }

    pub fn join(&self, name: &[u8]) -> Result<Self, PathError> {
        let mut path = RelPath(Vec::with_capacity(self.0.len() + 1 + name.len()));
        path.0.extend_from_slice(&self.0);
        path.push(name)?;
        Ok(path)
    }

    /// Leaves the path as it was if the name is refused.
    pub fn push(&mut self, name: &[u8]) -> Result<(), PathError> {
        if name.contains(&b'/') {
            return Err(PathError::Slash);
        }
        check_component(name)?;
        let slash = usize::from(!self.is_root());
        check_length(self.0.len() + slash + name.len())?;
        if slash == 1 {
            self.0.push(b'/');
        }
        self.0.extend_from_slice(name);
        Ok(())
    }

    /// From the root down. None for the root.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &[u8]> + Clone {
        self.0
            .split(|byte| *byte == b'/')
            .filter(|component| !component.is_empty())
    }

    /// The root has none.
    pub fn parent(&self) -> Option<RelPath> {
        if self.is_root() {
            return None;
        }
        let end = self.0.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        Some(RelPath(self.0.iter().copied().take(end).collect()))
    }

    /// The last component. The root has none.
    pub fn file_name(&self) -> Option<&[u8]> {
        self.components().next_back()
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this path is `ancestor` or below it. By components: `ab` does not start with `a`.
    pub fn starts_with(&self, ancestor: &RelPath) -> bool {
        match self.0.strip_prefix(ancestor.as_bytes()) {
            Some(rest) => ancestor.is_root() || rest.is_empty() || rest.starts_with(b"/"),
            None => false,
        }
    }
}

/// Guest data: shown escaped, wherever it is shown.
impl fmt::Debug for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    #[error("path that starts with a slash")]
    Absolute,
    #[error("empty component")]
    Empty,
    #[error("component that is . or ..")]
    Dots,
    #[error("NUL in a path")]
    Nul,
    #[error("slash in a name")]
    Slash,
    #[error("component of more than {MAX_COMPONENT} bytes")]
    ComponentTooLong,
    #[error("path of more than {MAX_PATH} bytes")]
    PathTooLong,
}

fn check_component(name: &[u8]) -> Result<(), PathError> {
    match name {
        b"" => Err(PathError::Empty),
        b"." | b".." => Err(PathError::Dots),
        _ if name.len() > MAX_COMPONENT => Err(PathError::ComponentTooLong),
        _ if name.contains(&0) => Err(PathError::Nul),
        _ => Ok(()),
    }
}

fn check_length(bytes: usize) -> Result<(), PathError> {
    if bytes > MAX_PATH {
        Err(PathError::PathTooLong)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
