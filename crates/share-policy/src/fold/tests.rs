use super::*;

fn folded(name: &[u8]) -> Vec<u8> {
    let mut room = [0; MAX_COMPONENT];
    fold(name, &mut room).to_ascii_lowercase()
}

#[test]
fn what_opens_an_ascii_name_on_a_folding_file_system_folds_into_it() {
    for (name, ascii) in [
        (".GIT", ".git"),
        (".g\u{200c}it", ".git"),
        ("\u{feff}.git", ".git"),
        (".\u{df}h", ".ssh"),
        (".\u{1e9e}H", ".ssh"),
        (".v\u{17f}code", ".vscode"),
        (".doc\u{212a}er", ".docker"),
        (".con\u{fb01}g", ".config"),
        (".ba\u{17f}hrc", ".bashrc"),
    ] {
        assert_eq!(folded(name.as_bytes()), ascii.as_bytes(), "{name:?}");
    }
}

#[test]
fn other_names_stay_what_they_are() {
    for name in ["größe".replace('ß', "s"), "日本".to_owned(), "É".to_owned()] {
        assert_eq!(folded(name.as_bytes()), name.as_bytes());
    }
    assert_eq!(folded(b"\xff.git\xc3"), b"\xff.git\xc3");
    assert_eq!(folded(&[0xc3; 300]), [0xc3; 300]);
}

#[test]
fn no_character_gets_longer_so_a_name_always_fits_its_room() {
    for character in '\0'..=char::MAX {
        if let Some(ascii) = fold_character(character) {
            assert!(ascii.len() <= character.len_utf8(), "{character:?}");
            assert!(ascii.is_ascii());
        }
    }
    let longest = "\u{fb03}".repeat(85);
    assert_eq!(folded(longest.as_bytes()), "ffi".repeat(85).as_bytes());
}
