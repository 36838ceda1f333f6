//! Names as a case-folding file system compares them, as far as that can end in ASCII.
//!
//! A share may lie in a folder that folds case (ext4, f2fs and tmpfs with `+F`, vfat): there `.GIT/hooks/pre-commit`
//! is the hook. ASCII case alone is not enough: these file systems fold all of Unicode, so `.ßh` opens `.ssh`,
//! `.vſcode` opens `.vscode`, and a code point that is "ignorable" may stand anywhere in a name. All patterns that
//! matter are ASCII; so only what folds into ASCII is folded, everything else is compared byte by byte. Where the
//! folder does not fold, a few odd names are refused too, which nobody misses.
//!
//! Not here: the short names of vfat (`GIT~1`) and the dots it drops from the end of a name. What has such names hides
//! them all ([`crate::SharePolicy::without_other_names`]).

use crate::path::MAX_COMPONENT;

/// Where a folded name is put if it is not the name itself.
pub(crate) type Room = [u8; MAX_COMPONENT];

/// The name itself if it is ASCII (whoever compares it ignores its case), not text, or longer than a name can be.
pub(crate) fn fold<'a>(name: &'a [u8], room: &'a mut Room) -> &'a [u8] {
    if name.is_ascii() || name.len() > room.len() {
        return name;
    }
    let Ok(text) = str::from_utf8(name) else {
        // A folding file system compares bytes when the name is no UTF-8, or refuses it.
        return name;
    };
    let mut len = 0;
    each_folded(text, |bytes| {
        // Never longer than the name was: checked below for every character.
        if let Some(free) = room.get_mut(len..len + bytes.len()) {
            free.copy_from_slice(bytes);
            len += bytes.len();
        }
    });
    room.get(..len).unwrap_or(name)
}

/// For patterns: the same, in lower case.
pub(crate) fn fold_text(text: &str) -> Vec<u8> {
    let mut folded = Vec::with_capacity(text.len());
    each_folded(text, |bytes| folded.extend_from_slice(bytes));
    folded.make_ascii_lowercase();
    folded
}

fn each_folded(text: &str, mut put: impl FnMut(&[u8])) {
    for character in text.chars() {
        match fold_character(character) {
            Some(ascii) => put(ascii.as_bytes()),
            None => put(character.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

/// What a character folds into, if that is ASCII: all such rows of Unicode's CaseFolding.txt (C and F) and of the
/// canonical decompositions.
fn fold_character(character: char) -> Option<&'static str> {
    Some(match character {
        '\u{17f}' => "s",
        '\u{df}' | '\u{1e9e}' => "ss",
        '\u{212a}' => "k",
        '\u{fb00}' => "ff",
        '\u{fb01}' => "fi",
        '\u{fb02}' => "fl",
        '\u{fb03}' => "ffi",
        '\u{fb04}' => "ffl",
        '\u{fb05}' | '\u{fb06}' => "st",
        '\u{37e}' => ";",
        '\u{1fef}' => "`",
        _ if is_ignorable(character) => "",
        _ => return None,
    })
}

/// `Default_Ignorable_Code_Point`: the folding of ext4 drops them.
pub(crate) fn is_ignorable(character: char) -> bool {
    matches!(character,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
        | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}'
        | '\u{fff0}'..='\u{fff8}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests;
