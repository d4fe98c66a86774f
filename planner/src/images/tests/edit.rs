use rstest::rstest;

use crate::images::edit::*;
use crate::images::scalars::{Unreadable, image_scalars};

fn replaced(text: &str, value: &str) -> Result<String, EditError> {
    replace(text.as_bytes(), &[(0, value.to_owned())]).map(|bytes| String::from_utf8(bytes).unwrap())
}

#[rstest]
#[case::plain("a: 1\nimage: a:v1  # c\nb: 2\n", "a:v2", "a: 1\nimage: a:v2  # c\nb: 2\n")]
#[case::single_quotes_stay("image: 'a:v1' # c\n", "a:v2", "image: 'a:v2' # c\n")]
#[case::single_quotes_double_their_own("image: 'a'\n", "it's", "image: 'it''s'\n")]
#[case::double_quotes_stay("image: \"a:v1\" # c\n", "a:v2", "image: \"a:v2\" # c\n")]
#[case::double_quotes_escape(
    "image: \"a\"\n",
    "a\"b\\c\n\u{7}\u{2028}",
    "image: \"a\\\"b\\\\c\\n\\u0007\\u2028\"\n"
)]
#[case::json("{\"image\":\"a\",\"b\":1}", "b:v2", "{\"image\":\"b:v2\",\"b\":1}")]
#[case::an_equal_value_keeps_its_bytes("image: \"\\x61:v1\"\n", "a:v1", "image: \"\\x61:v1\"\n")]
#[case::a_literal_block_keeps_its_header(
    "image: |- # c\n    a:v1\n\n# d\nb: c\n",
    "a:v2",
    "image: |- # c\n    a:v2\n\n# d\nb: c\n"
)]
#[case::a_folded_block_too("image: >-\r\n   a:v1\r\nb: c\r\n", "a:v2", "image: >-\r\n   a:v2\r\nb: c\r\n")]
#[case::a_block_with_an_indentation("image: |1-\n a\nb: c\n", "b", "image: |1-\n b\nb: c\n")]
#[case::a_block_of_many_lines("image: >-\n\n  a\n  b\nb: c\n", "d", "image: >-\n  d\nb: c\n")]
#[case::a_block_keeps_its_last_line_ends("image: |+\n  a\n\n\nb: c\n", "b", "image: |+\n  b\n\n\nb: c\n")]
#[case::a_block_may_be_given_its_line_end("image: |\n  a\nb: c\n", "b\n", "image: |\n  b\nb: c\n")]
#[case::a_block_at_the_end_of_the_file("image: |-\n  a", "b", "image: |-\n  b")]
#[case::spaces_after_a_blocks_text_go_with_it("image: |-\n  a  \nb: c\n", "b", "image: |-\n  b\nb: c\n")]
#[case::plain_over_lines_becomes_one("image: a\n  b # c\nb: c\n", "d", "image: d # c\nb: c\n")]
#[case::an_anchor_stays(
    "image: !!str &i a # c\nb: {image: *i}\n",
    "b",
    "image: !!str &i b # c\nb: {image: *i}\n"
)]
#[case::an_alias_changes_its_anchor("x-i: &i a\nimage: *i\n", "b", "x-i: &i b\nimage: *i\n")]
#[case::variables_stay_plain("image: a:v1\n", "${A:-b}/c:$D", "image: ${A:-b}/c:$D\n")]
#[case::but_not_within_braces("{image: a:v1}\n", "a:${B}", "{image: \"a:${B}\"}\n")]
#[case::nor_in_lists("[image: a]\n", "a,b", "[image: \"a,b\"]\n")]
#[case::a_comment_sign_needs_quotes("image: a\n", "a #b", "image: \"a #b\"\n")]
#[case::a_colon_needs_quotes("image: a\n", "a: b", "image: \"a: b\"\n")]
#[case::a_last_colon_needs_quotes("image: a\n", "a:", "image: \"a:\"\n")]
#[case::a_first_sign_needs_quotes("image: a\n", "@a", "image: \"@a\"\n")]
#[case::a_number_needs_quotes("image: a\n", "1.5", "image: \"1.5\"\n")]
#[case::a_time_needs_quotes("image: a\n", "12:30", "image: \"12:30\"\n")]
#[case::a_boolean_needs_quotes("image: a\n", "No", "image: \"No\"\n")]
#[case::null_needs_quotes("image: a\n", "null", "image: \"null\"\n")]
#[case::nothing_needs_quotes("image: a\n", "", "image: \"\"\n")]
#[case::a_space_needs_quotes("image: a\n", " a", "image: \" a\"\n")]
#[case::a_line_end_needs_quotes("image: 'a'\n", "a\nb", "image: \"a\\nb\"\n")]
#[case::an_address_needs_none("image: a\n", "127.0.0.1:5000/app:v1", "image: 127.0.0.1:5000/app:v1\n")]
#[case::a_digest_needs_none("image: a\n", "a:v1@sha256:00", "image: a:v1@sha256:00\n")]
#[case::after_a_byte_order_mark("\u{feff}# é\r\nimage: a\r\n", "b", "\u{feff}# é\r\nimage: b\r\n")]
fn p7_only_the_image_changes(#[case] before: &str, #[case] value: &str, #[case] after: &str) {
    assert_eq!(replaced(before, value).as_deref(), Ok(after));
    assert_eq!(replaced(after, value).as_deref(), Ok(after), "the same again changes nothing");
}

#[test]
fn many_images_change_at_once_in_any_order() {
    let text = "x-i: &i a\nb: [{image: *i}, {image: \"b\"}]\nimage: |-\n  c\nd:\n  image: d\n";
    let edits = [(3, "z".to_owned()), (0, "longer:v1".to_owned()), (2, "y".to_owned())];
    let after = String::from_utf8(replace(text.as_bytes(), &edits).unwrap()).unwrap();
    assert_eq!(
        after,
        "x-i: &i longer:v1\nb: [{image: *i}, {image: \"b\"}]\nimage: |-\n  y\nd:\n  image: z\n"
    );
}

#[test]
fn no_edits_give_the_file_back() {
    let text = b"\xef\xbb\xbfimage:\t'a'\r\n# c\n";
    assert_eq!(replace(text, &[]).unwrap(), text);
}

#[rstest]
#[case::an_unknown_index("image: a\n", &[(1, "b")], EditError::NoSuchScalar { index: 1, count: 1 })]
#[case::the_same_twice("b: c\nimage: a\n", &[(0, "b"), (0, "b")], EditError::Twice { line: 2 })]
#[case::a_block_without_text("image: |-\n\nb: c\n", &[(0, "b")], EditError::EmptyBlock { line: 1 })]
#[case::a_block_with_nothing_after("image: |-", &[(0, "b")], EditError::EmptyBlock { line: 1 })]
#[case::a_block_that_would_begin_with_spaces("image: |-\n  a\n", &[(0, " b")], EditError::ReadsBackOtherwise { line: 1 })]
#[case::a_block_that_would_become_lines("image: |-\n  a\n", &[(0, "a\nb: c")], EditError::ReadsBackOtherwise { line: 1 })]
#[case::a_block_whose_end_would_change("image: |-\n  a\n", &[(0, "b\n")], EditError::ReadsBackOtherwise { line: 1 })]
#[case::a_block_that_would_be_empty("image: |-\n  a\n", &[(0, "")], EditError::ReadsBackOtherwise { line: 1 })]
#[case::a_value_that_is_also_a_key("x-k: &k image\nimage: *k\nb: {*k : c}\n", &[(0, "b")], EditError::AlsoElsewhere { line: 1, also_at: 3 })]
#[case::a_value_that_another_key_uses("image: &i a\nb: *i\nc: *i\n", &[(0, "b")], EditError::AlsoElsewhere { line: 1, also_at: 2 })]
#[case::a_value_under_a_key_that_is_an_alias("x-k: &k a\n*k : &i b\nimage: *i\n", &[(0, "b2")], EditError::AlsoElsewhere { line: 2, also_at: 2 })]
#[case::a_value_that_stands_under_another_key("a: {x-b: &i a}\nimage: *i\n", &[(0, "b")], EditError::AlsoElsewhere { line: 1, also_at: 1 })]
#[case::no_yaml("image: [", &[], EditError::Unreadable(Unreadable::Malformed { line: 1 }))]
fn what_cannot_be_written_exactly_is_refused(
    #[case] text: &str,
    #[case] edits: &[(usize, &str)],
    #[case] error: EditError,
) {
    let edits: Vec<_> = edits.iter().map(|(index, value)| (*index, (*value).to_owned())).collect();
    assert_eq!(replace(text.as_bytes(), &edits), Err(error));
}

#[test]
fn a_file_that_would_become_too_long_is_refused() {
    let text = format!("image: a\n#{}", "c".repeat(crate::images::scalars::FILE_LIMIT - 10));
    assert!(image_scalars(text.as_bytes()).is_ok());
    assert_eq!(replaced(&text, "ab"), Err(EditError::ReadsBackOtherwise { line: 1 }));
}

#[test]
fn errors_never_hold_a_value() {
    let secret = "canary-7f3a";
    for text in
        [format!("image: |-\n  {secret}\n"), format!("x: &k image\nimage: *k\n{secret}: {{*k : {secret}}}\n")]
    {
        let error = replaced(&text, &format!("{secret}\n{secret}: 1")).unwrap_err();
        assert!(!format!("{error} {error:?}").contains(secret), "{error:?}");
    }
}
