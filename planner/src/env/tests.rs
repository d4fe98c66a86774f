//! P7: every other byte stays, and the value is exactly the intended one.

use proptest::prelude::*;
use rstest::rstest;

use super::*;

fn want(name: &str, value: &str) -> EnvValue {
    EnvValue { name: EnvKey::parse(name).unwrap(), value: value.to_owned() }
}

fn patched(before: &str, value: &str) -> String {
    String::from_utf8(patch(before.as_bytes(), &[want("TAG", value)]).unwrap().bytes).unwrap()
}

#[rstest]
#[case::plain("A=1\nTAG=v1\nB=2\n", "v2", "A=1\nTAG=v2\nB=2\n")]
#[case::already_there_in_other_quotes_stays("TAG=\"v2\"  # kept\n", "v2", "TAG=\"v2\"  # kept\n")]
#[case::escaped_but_equal_stays("TAG=\"a\\$b\"\n", "a$b", "TAG=\"a\\$b\"\n")]
#[case::an_inline_comment_is_kept("TAG=v1  # the release\n", "v2", "TAG=v2  # the release\n")]
#[case::crlf_is_kept_line_by_line("A=1\r\nTAG=v1\r\nB=2\n", "v2", "A=1\r\nTAG=v2\r\nB=2\n")]
#[case::single_quotes_are_kept("TAG='v1'\n", "v2", "TAG='v2'\n")]
#[case::double_quotes_are_kept("TAG=\"v1\" # c\n", "v2", "TAG=\"v2\" # c\n")]
#[case::single_quotes_that_cannot_hold_it_become_double("TAG='v1'\n", "it's", "TAG=\"it's\"\n")]
#[case::plain_that_cannot_hold_it_becomes_single("TAG=v1 # c\n", "a #b $x", "TAG='a #b $x' # c\n")]
#[case::plain_keeps_inner_spaces("TAG=v1\n", "a b", "TAG=a b\n")]
#[case::double_escapes("TAG=\"v1\"\n", "a\"b\\c$d\ne", "TAG=\"a\\\"b\\\\c\\$d\\ne\"\n")]
#[case::export_is_kept("  export TAG=v1\n", "v2", "  export TAG=v2\n")]
#[case::spaces_around_the_sign_are_kept("TAG = v1 \n", "v2", "TAG = v2 \n")]
#[case::yaml_style_is_kept("TAG: v1\n", "v2", "TAG: v2\n")]
#[case::all_duplicates_are_set("TAG=v1\nA=1\nTAG='v0'\n", "v2", "TAG=v2\nA=1\nTAG='v2'\n")]
#[case::only_the_differing_duplicate_is_touched("TAG=\"v2\"\nTAG=v1\n", "v2", "TAG=\"v2\"\nTAG=v2\n")]
#[case::absent_is_appended("A=1\n", "v2", "A=1\nTAG=v2\n")]
#[case::absent_is_appended_with_the_files_ending("A=1\r\n", "v2", "A=1\r\nTAG=v2\r\n")]
#[case::a_missing_final_newline_is_added_first("A=1\r\nB=2", "v2", "A=1\r\nB=2\r\nTAG=v2\r\n")]
#[case::no_file_yet("", "v2", "TAG=v2\n")]
#[case::only_a_byte_order_mark("\u{feff}", "v2", "\u{feff}TAG=v2\n")]
#[case::a_byte_order_mark_before_the_key("\u{feff}TAG=v1\n", "v2", "\u{feff}TAG=v2\n")]
#[case::no_final_newline_and_present("A=1\nTAG=v1", "v2", "A=1\nTAG=v2")]
#[case::empty_becomes_a_value("TAG=\nA=1\n", "v2", "TAG=v2\nA=1\n")]
#[case::empty_with_spaces_and_cr("TAG=  \r\nA=1\r\n", "v2", "TAG=v2  \r\nA=1\r\n")]
#[case::a_value_becomes_empty("TAG=v1\n", "", "TAG=\n")]
#[case::a_value_before_a_comment_becomes_empty("TAG=v1 # c\n", "", "TAG='' # c\n")]
#[case::a_comment_where_the_value_should_be_is_kept("TAG= # none yet\n", "v2", "TAG=v2 # none yet\n")]
#[case::a_bare_key_gets_a_value("TAG\nA=1\n", "v2", "TAG=v2\nA=1\n")]
#[case::a_bare_key_at_the_end("A=1\nTAG", "v2", "A=1\nTAG=v2")]
#[case::a_commented_key_is_no_definition("#TAG=v1\n", "v2", "#TAG=v1\nTAG=v2\n")]
#[case::a_longer_key_is_another("TAG2=v1\nMYTAG=v1\n", "v2", "TAG2=v1\nMYTAG=v1\nTAG=v2\n")]
#[case::a_line_within_anothers_quotes_is_no_definition(
    "KEY='a\nTAG=v0\n'\nTAG=v1\n",
    "v2",
    "KEY='a\nTAG=v0\n'\nTAG=v2\n"
)]
#[case::a_multi_line_value_is_replaced_whole("TAG=\"a\nb\" # c\nA=1\n", "v2", "TAG=\"v2\" # c\nA=1\n")]
#[case::an_escaped_quote_does_not_end("K=\"a\\\"\nTAG=v0\"\nTAG=v1\n", "v2", "K=\"a\\\"\nTAG=v0\"\nTAG=v2\n")]
#[case::dynamic_becomes_literal("TAG=${BASE:-v2}\n", "v2", "TAG=v2\n")]
fn p7_only_the_value_changes(#[case] before: &str, #[case] value: &str, #[case] after: &str) {
    assert_eq!(patched(before, value), after);
    assert_eq!(patched(after, value), after, "patching again changes nothing");
}

#[rstest]
#[case::plain("K=a b  # c", "a b")]
#[case::hash_within("K=a#b", "a#b")]
#[case::single("K='a $b \\n #'", "a $b \\n #")]
#[case::escaped_single("K='it\\'s'", "it's")]
#[case::two_backslashes_in_single("K='a\\\\'", "a\\\\")]
#[case::double("K=\"a\\tb\\\\n\\$x$$y\"", "a\tb\\n$x$y")]
#[case::unknown_escape_stays("K=\"\\q\\c\"", "\\q\\c")]
#[case::octal("K=\"\\0101\\0377\"", "Aÿ")]
#[case::short_octal_loses_its_zero("K=\"\\012\\0\"", "\\12\\")]
#[case::dollar_that_begins_nothing("K=a$5$", "a$5$")]
#[case::unicode_spaces("K=\u{a0}x\u{2003}\n", "x")]
fn values_are_read_as_compose_reads_them(#[case] line: &str, #[case] value: &str) {
    let file = EnvFile::parse(line.as_bytes()).unwrap();
    assert_eq!(
        file.get("K"),
        Some(&Value::Literal(value.as_bytes().to_vec())),
        "{:?}",
        file.get("K").unwrap().literal()
    );
}

#[rstest]
#[case::by_itself("K=${K:-a}\n", Some("a"))]
#[case::from_above("X=1\nK=${X}${X}\n", Some("11"))]
#[case::not_from_below("K=[${X}]\nX=1\n", Some("[]"))]
#[case::above_as_it_is_there("X=1\nK=$X\nX=2\n", Some("1"))]
#[case::the_last_counts("K=a\nK=b$K\n", Some("ba"))]
#[case::what_compose_is_run_with_first("HOME=/x\nK=${HOME}\n", Some("/root"))]
#[case::quoted("X=1\nK='$X'\n", Some("$X"))]
#[case::named_alone("K\n", None)]
#[case::absent("X=1\n", None)]
fn a_value_made_of_others_is_put_together_in_the_files_order(
    #[case] text: &str,
    #[case] value: Option<&str>,
) {
    let given = BTreeMap::from([("HOME".to_owned(), "/root".to_owned())]);
    let file = EnvFile::parse(text.as_bytes()).unwrap();
    assert_eq!(file.settled(&given).remove("K"), value.map(|value| Ok(value.to_owned())));
}

#[test]
fn a_value_that_can_not_be_put_together_spoils_no_other() {
    let file = EnvFile::parse(b"A=${X:?no}\nB=b\nK=$A$B\n").unwrap();
    let settled = file.settled(&BTreeMap::new());
    assert_eq!(settled["A"], Err(Unfilled::Required("X".to_owned())));
    assert_eq!(settled["K"], Ok("b".to_owned()));
}

#[rstest]
#[case::unclosed("A=1\nB='x\n", 2, "closing quote")]
#[case::strange_name("A=1\n\nB%=1\n", 3, "does not allow")]
#[case::space_in_name("A B=1\n", 1, "space")]
#[case::lonely_export("export ", 1, "export")]
fn a_file_that_compose_cannot_read_is_refused_with_its_line(
    #[case] text: &str,
    #[case] line: usize,
    #[case] cause: &str,
) {
    let error = patch(text.as_bytes(), &[want("TAG", "v")]).unwrap_err();
    assert!(matches!(error, EnvError::Unreadable { line: at, .. } if at == line), "{error}");
    assert!(error.to_string().contains(cause), "{error}");
}

#[test]
fn p12_errors_and_debug_output_never_hold_a_value() {
    let secret = "canary-7f3a";
    let long = secret.repeat(VALUE_LIMIT);
    let nul = format!("{secret}\0");
    for value in [long.as_str(), nul.as_str()] {
        let error = patch(b"", &[want("TAG", value)]).unwrap_err();
        assert!(!format!("{error} {error:?}").contains(secret));
    }
    let unclosed = format!("A='{secret}");
    let error = EnvFile::parse(unclosed.as_bytes()).unwrap_err();
    assert!(!format!("{error} {error:?}").contains(secret));
    let text = format!("TAG={secret}\n");
    let shown = format!(
        "{:?} {:?}",
        EnvFile::parse(text.as_bytes()).unwrap(),
        patch(text.as_bytes(), &[want("A", secret)]).unwrap()
    );
    assert!(!shown.contains(secret), "{shown}");
}

#[test]
fn a_key_named_twice_is_refused() {
    let error = patch(b"", &[want("A", "1"), want("A", "2")]).unwrap_err();
    assert_eq!(error, EnvError::Twice { name: EnvKey::parse("A").unwrap() });
}

#[test]
fn states_tell_present_from_wanted() {
    let file = EnvFile::parse(b"A=1\nB=${X}\nC\nD=\n").unwrap();
    let state = |name: &str, value: &str| {
        let state = file.key_state(&want(name, value));
        (state.present, state.as_wanted)
    };
    assert_eq!(state("A", "1"), (true, true));
    assert_eq!(state("A", "2"), (true, false));
    assert_eq!(state("B", "${X}"), (true, false), "it depends on X");
    assert_eq!(state("C", ""), (false, false), "it has no value of its own");
    assert_eq!(state("D", ""), (true, true));
    assert_eq!(state("E", ""), (false, false));
}

#[test]
fn changed_and_appended_keys_are_named_apart() {
    let result = patch(b"A=1\nB=2\n", &[want("A", "1"), want("B", "3"), want("C", "4")]).unwrap();
    let names = |keys: &[EnvKey]| keys.iter().map(EnvKey::to_string).collect::<Vec<_>>();
    assert_eq!(
        (names(&result.changed), names(&result.appended)),
        (vec!["B".to_owned()], vec!["C".to_owned()])
    );
}

/// Lines that define no wanted key, each whole with its ending.
fn other_line() -> impl Strategy<Value = String> {
    let ending = prop_oneof![Just("\n"), Just("\r\n")];
    let line = prop_oneof![
        Just(String::new()),
        "#[ -~]{0,20}",
        "(export )?OTHER[A-Z]{0,3} ?= ?[a-z0-9./-]{0,12}( #[ -~]{0,8})?",
        "OTHER[A-Z]{0,3}='[ -&(-\\[\\]-~\n]{0,16}'( # x)?",
        "OTHER[A-Z]{0,3}=\"([ !#%-\\[\\]-~\n]|\\\\\"|\\\\n){0,16}\"",
        "OTHER[A-Z]{0,3}: [a-z]{1,5}",
        "OTHER[A-Z]{0,3}",
    ];
    (line, ending).prop_map(|(line, ending)| line + ending)
}

/// Lines that define the wanted key: what stands before the value, the value, and what follows it.
fn own_line() -> impl Strategy<Value = Line> {
    let before = "(export )?TAG ?(=|:) ?";
    let value = prop_oneof!["[a-z0-9.-]{1,8}", "'[a-z #$\n]{0,8}'", "\"[a-z #\n]{0,8}\""];
    let after = "( # [a-z]{0,5})?[ \t]{0,2}\r?\n";
    (before, value, after).prop_map(|(before, value, after)| Line::Own { before, value, after })
}

#[derive(Clone, Debug)]
enum Line {
    Other(String),
    Own { before: String, value: String, after: String },
}

fn any_value() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-zA-Z0-9._-]{0,12}",
        "[ -~\t]{0,24}",
        "[\\\\'\"$#{} \n\r]{0,10}",
        any::<String>().prop_map(|text| text.replace('\0', "")),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn p7_other_lines_keep_their_bytes_and_the_value_is_exact(
        lines in prop::collection::vec(
            prop_oneof![
                4 => other_line().prop_map(Line::Other),
                1 => own_line(),
            ],
            0..12,
        ),
        value in any_value(),
    ) {
        let mark = |at: usize| format!("# line {at} is next\n");
        let mut text = String::new();
        for (at, line) in lines.iter().enumerate() {
            text += &mark(at);
            match line {
                Line::Other(line) => text += line,
                Line::Own { before, value, after } => text.extend([before.as_str(), value, after]),
            }
        }
        text += &mark(lines.len());
        let result = patch(text.as_bytes(), &[want("TAG", &value)]).unwrap();
        let mut rest = std::str::from_utf8(&result.bytes).unwrap();
        for (at, line) in lines.iter().enumerate() {
            rest = rest.strip_prefix(&mark(at)).expect("a comment changed");
            let (found, _) = rest.split_once(&mark(at + 1)).expect("a comment is gone");
            rest = &rest[found.len()..];
            match line {
                Line::Other(line) => prop_assert_eq!(found, line),
                Line::Own { before, after, .. } => {
                    prop_assert!(found.starts_with(before) && found.ends_with(after), "{found:?}");
                }
            }
        }
        let file = EnvFile::parse(&result.bytes).unwrap();
        prop_assert_eq!(file.get("TAG"), Some(&Value::Literal(value.clone().into_bytes())));
        let again = patch(&result.bytes, &[want("TAG", &value)]).unwrap();
        prop_assert_eq!(&again.bytes, &result.bytes);
        let (old, new) = (EnvFile::parse(text.as_bytes()).unwrap(), file);
        for (key, value) in &old.values {
            if key != "TAG" {
                prop_assert_eq!(new.get(key), Some(value));
            }
        }
    }

    #[test]
    fn any_bytes_are_patched_or_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), value in any_value()) {
        if let Ok(result) = patch(&bytes, &[want("TAG", &value)]) {
            let file = EnvFile::parse(&result.bytes).unwrap();
            prop_assert_eq!(file.get("TAG"), Some(&Value::Literal(value.into_bytes())));
        }
    }

    #[test]
    fn text_of_the_grammars_own_letters_is_patched_or_refused(text in "[TAGB=:#'\"$\\\\ \r\n\texpor{}]{0,60}", value in any_value()) {
        if let Ok(result) = patch(text.as_bytes(), &[want("TAG", &value)]) {
            let file = EnvFile::parse(&result.bytes).unwrap();
            prop_assert_eq!(file.get("TAG"), Some(&Value::Literal(value.into_bytes())));
        }
    }
}

#[test]
fn p7_a_line_that_would_swallow_what_is_appended_is_refused() {
    let wanted = EnvValue { name: EnvKey::parse("KEY").unwrap(), value: "v".to_owned() };
    let error = patch(b"export", std::slice::from_ref(&wanted)).unwrap_err();
    assert!(matches!(error, EnvError::Unrepresentable { .. }), "{error}");
}
