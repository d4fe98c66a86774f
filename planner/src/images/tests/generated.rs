//! Generated files in every style, read by two readers that know nothing of the edit: the one that reads compose files
//! as values (merge keys applied), and another parser's events.

use std::ops::Range;

use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::Value;

use crate::images::*;

/// How an image is written.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Writing {
    Plain,
    Lines,
    NextLine,
    Single,
    Double,
    Escaped,
    Literal(&'static str),
}

/// Where an image is written.
#[derive(Clone, Copy, Debug)]
enum Place {
    Service,
    ComplexKey,
    QuotedKey,
    Flow,
    FlowOverLines,
    Json,
    Merged,
    MergedTwiceAndOverridden,
    Aliased,
    AliasedAgain,
}

#[derive(Clone, Debug)]
struct Item {
    place: Place,
    writing: Writing,
    properties: &'static str,
    comment: &'static str,
    noise: &'static str,
    value: String,
}

/// An image of a file: its bytes, what is read, and where models have it.
struct Truth {
    span: Range<usize>,
    value: String,
    is_block: bool,
    pointers: Vec<(usize, String)>,
}

struct File {
    text: String,
    line_end: &'static str,
    images: Vec<Truth>,
}

impl File {
    fn put(&mut self, text: &str) {
        self.text += &text.replace('\n', self.line_end);
    }

    /// The value of a key, from behind its `:` to its line's end.
    fn image(&mut self, item: &Item, indentation: &str, pointers: Vec<(usize, String)>) {
        let value = item.value.as_str();
        let properties = item.properties.replace('N', &self.images.len().to_string());
        self.put(&format!(" {properties}"));
        let in_lines = value.replace(' ', &format!("\n{indentation}"));
        if item.writing == Writing::NextLine {
            self.put(&format!("{}\n{indentation}", item.comment));
        }
        let start = self.text.len();
        let (written, read) = match item.writing {
            Writing::Plain | Writing::NextLine => (value.to_owned(), value.to_owned()),
            Writing::Lines => (in_lines, value.to_owned()),
            Writing::Single => (format!("'{}'", value.replace('\'', "''")), value.to_owned()),
            Writing::Double => (format!("\"{value}\""), value.to_owned()),
            Writing::Escaped => (escaped(value), value.to_owned()),
            Writing::Literal(header) => {
                let end = if header.ends_with('-') { "" } else { "\n" };
                let written = format!("{header}{}\n{indentation}{value}", item.comment);
                (written, format!("{value}{end}"))
            }
        };
        self.put(&written);
        let is_block = matches!(item.writing, Writing::Literal(_));
        self.images.push(Truth { span: start..self.text.len(), value: read, is_block, pointers });
        self.put(if is_block { "" } else { item.comment });
        self.put("\n");
    }

    /// A value within `{…}`.
    fn flow(&mut self, item: &Item, is_json: bool, pointers: Vec<(usize, String)>) {
        let writing = match item.writing {
            Writing::Single if !is_json => Writing::Single,
            Writing::Plain if !is_json && !item.value.contains(['{', '}']) => Writing::Plain,
            Writing::Escaped => Writing::Escaped,
            _ => Writing::Double,
        };
        let properties = if is_json { "" } else { item.properties };
        let item = Item { writing, properties, comment: "", ..item.clone() };
        let line_end = std::mem::take(&mut self.line_end);
        self.image(&item, "", pointers);
        self.line_end = line_end;
    }

    fn extension(&mut self, document: usize, at: usize, item: &Item) {
        let service = |name: &str| (document, format!("/services/{name}{at}/image"));
        let own = (document, format!("/x-{at}/image"));
        match item.place {
            Place::Merged => {
                self.put(&format!("x-{at}: &x{at}\n  a: 1\n  image:"));
                self.image(item, "    ", vec![own, service("s")]);
                self.put("  b: 2\n");
            }
            Place::MergedTwiceAndOverridden => {
                self.put(&format!("x-{at}: &x{at} # c\n  image:"));
                self.image(item, "     ", vec![own, service("s"), service("t")]);
            }
            Place::Aliased | Place::AliasedAgain => {
                let name =
                    if matches!(item.place, Place::Aliased) { format!("i{at}") } else { "same".to_owned() };
                let item = Item { properties: "", ..item.clone() };
                self.put(&format!("x-{at}: &{name}"));
                let own = (document, format!("/x-{at}"));
                // An alias means the definition before it, so each item's stand together.
                self.image(&item, "  ", vec![own, (document, format!("/x-use-{at}/0/image"))]);
                self.put(&format!("x-use-{at}: [{{image: *{name}}}]\n"));
            }
            _ => {}
        }
    }

    fn service(&mut self, document: usize, at: usize, item: &Item) {
        let pointers = vec![(document, format!("/services/s{at}/image"))];
        match item.place {
            Place::Service => {
                self.put(&format!("  s{at}:\n    a: b\n    image:"));
                self.image(item, "      ", pointers);
            }
            Place::ComplexKey => {
                self.put(&format!("  s{at}:\n    ? image\n    :"));
                self.image(item, "      ", pointers);
            }
            Place::QuotedKey => {
                self.put(&format!("  \"s{at}\":\n      'image' :"));
                self.image(item, "       ", pointers);
            }
            Place::Flow => {
                self.put(&format!("  s{at}: {{é: [a, 'image: b'], image:"));
                self.flow(item, false, pointers);
                self.put(", image2: c} # d\n");
            }
            Place::FlowOverLines => {
                self.put(&format!("  s{at}: {{\n    a: b, # c: {{\n    image:"));
                self.flow(item, false, pointers);
                self.put("\n    ,c: d\n   }\n");
            }
            Place::Json => {
                self.put(&format!("  \"s{at}\": {{\"a\":null,\"image\":"));
                self.flow(item, true, pointers);
                self.put(",\"b\":[1,\"image\"]}\n");
            }
            Place::Merged => self.put(&format!("  s{at}:\n    <<: *x{at}\n    c: 3\n")),
            Place::MergedTwiceAndOverridden => {
                for name in ["s", "t"] {
                    self.put(&format!("  {name}{at}: {{<<: *x{at}}}\n"));
                }
                self.put(&format!("  u{at}:\n    <<: [*x{at}]\n    image:\n"));
            }
            Place::Aliased | Place::AliasedAgain => self.put(&format!("  s{at}: {{image: }}\n")),
        }
    }
}

fn escaped(value: &str) -> String {
    let mut rest = value.chars();
    let first = rest.next().map(|c| format!("\\u{:04x}", u32::from(c))).unwrap_or_default();
    format!("\"{first}{}\"", rest.as_str())
}

fn render(documents: &[Vec<Item>], has_mark: bool, has_returns: bool) -> File {
    let line_end = if has_returns { "\r\n" } else { "\n" };
    let mut file = File { text: String::new(), line_end, images: Vec::new() };
    file.put(if has_mark { "\u{feff}" } else { "" });
    for (document, items) in documents.iter().enumerate() {
        file.put(if document > 0 { "---\n" } else { "# first \t é\n" });
        for (at, item) in items.iter().enumerate() {
            file.extension(document, at, item);
            file.put(item.noise);
        }
        file.put("services:\n  none: {image: }\n");
        for (at, item) in items.iter().enumerate() {
            file.service(document, at, item);
            file.put(item.noise);
        }
    }
    file
}

/// All names begin with `q`, for `n` would be read as a boolean.
fn reference() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "q[a-z]{0,4}(/[a-z]{1,4}){0,2}:v[0-9]{1,3}",
        1 => "q[a-z]{0,4}(/[a-z]{1,4}){0,2}",
        1 => "ghcr\\.io:50/[a-z]{1,5}@sha256:[0-9a-f]{8}",
        2 => "q[a-z]{0,3}:\\$\\{TAG:-v[0-9]\\}",
        1 => "\\$\\{IMAGE\\}",
    ]
}

fn item() -> impl Strategy<Value = Item> {
    let place = select(vec![
        Place::Service,
        Place::ComplexKey,
        Place::QuotedKey,
        Place::Flow,
        Place::FlowOverLines,
        Place::Json,
        Place::Merged,
        Place::MergedTwiceAndOverridden,
        Place::Aliased,
        Place::AliasedAgain,
    ]);
    let writing = select(vec![
        Writing::Plain,
        Writing::Lines,
        Writing::NextLine,
        Writing::Single,
        Writing::Double,
        Writing::Escaped,
        Writing::Literal("|-"),
        Writing::Literal(">-"),
        Writing::Literal("|"),
        Writing::Literal(">"),
    ]);
    let properties = select(vec!["", "", "&aN ", "!!str ", "!!str &aN ", "&aN !!str "]);
    let comment = select(vec!["", "", " # c", " \t# é: ü | > &a", "\t# a\tb", " #"]);
    let noise = select(vec!["", "", "\n", "# image: no 🦀\t'\n", " # image: \"\n", "\n\n \n"]);
    (place, writing, properties, comment, noise, reference()).prop_map(
        |(place, writing, properties, comment, noise, value)| {
            let value = if writing == Writing::Lines { format!("{value} x y") } else { value };
            Item { place, writing, properties, comment, noise, value }
        },
    )
}

fn file() -> impl Strategy<Value = File> {
    let documents = prop::collection::vec(prop::collection::vec(item(), 0..6), 1..3);
    (documents, any::<bool>(), any::<bool>())
        .prop_map(|(documents, mark, returns)| render(&documents, mark, returns))
}

fn new_value() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => reference(),
        1 => "\\PC{0,8}",
        1 => "[-?:,{}#&*!|>'\"%@`=<. a0~\\n\\t\u{85}\u{feff}\u{7}\\\\]{0,5}",
        1 => select(vec!["null", "true", "No", "1", "1.5", "0x1f", "12:30", "2026-01-01", "~", "---", "...", "<<"])
            .prop_map(str::to_owned),
    ]
}

fn models(text: &str) -> Option<Vec<Value>> {
    let options = serde_saphyr::options! { with_snippet: false };
    serde_saphyr::from_multiple_with_options(text, options).ok()
}

/// What another parser reads: every event, with the values of scalars.
fn others_events(text: &str) -> Option<Vec<(String, Option<String>)>> {
    use saphyr_parser::{Event, Parser};
    let events = Parser::new_from_str(text).map(|event| {
        Some(match event.ok()?.0 {
            Event::Scalar(value, _, anchor, tag) => (format!("{anchor} {tag:?}"), Some(value.into_owned())),
            // One of them keeps how a collection is written, which an edit can't change without the rest.
            other => (format!("{other:?}"), None),
        })
    });
    events.collect()
}

impl std::fmt::Debug for File {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.text)
    }
}

/// The value as it reads after an edit.
fn as_read(image: &Truth, value: &str) -> String {
    let end = if image.is_block && image.value.ends_with('\n') && !value.ends_with('\n') { "\n" } else { "" };
    format!("{value}{end}")
}

fn between<'t>(text: &'t str, spans: &[Range<usize>]) -> Vec<&'t str> {
    let starts = std::iter::once(0).chain(spans.iter().map(|span| span.end));
    let ends = spans.iter().map(|span| span.start).chain([text.len()]);
    starts.zip(ends).map(|(start, end)| &text[start..end]).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn p7_every_image_is_found_and_nothing_else(file in file()) {
        let found = image_scalars(file.text.as_bytes()).unwrap();
        let found: Vec<_> = found.into_iter().map(|image| (image.span, image.line, image.value)).collect();
        let line = |at: usize| u32::try_from(file.text[..at].split('\n').count()).unwrap();
        let truth: Vec<_> = file.images.iter()
            .map(|image| (image.span.clone(), line(image.span.start), image.value.clone()))
            .collect();
        prop_assert_eq!(found, truth);
    }

    #[test]
    fn p7_only_the_images_meant_change_for_every_reader(
        file in file(),
        new in prop::collection::vec(prop::option::weighted(0.6, new_value()), 1..8),
    ) {
        let edits: Vec<(usize, String)> = (0..file.images.len())
            .filter_map(|index| Some((index, new[index % new.len()].clone()?)))
            .collect();
        let result = replace(file.text.as_bytes(), &edits);
        let is_hard = |(index, value): &(usize, String)| {
            let is_reference = image_like(value);
            file.images[*index].is_block && !is_reference
        };
        if result.is_err() && edits.iter().any(is_hard) {
            return Ok(());
        }
        let after = String::from_utf8(result.unwrap()).unwrap();

        let mut models_meant = models(&file.text).unwrap();
        let mut others_meant = others_events(&file.text).unwrap();
        for (index, value) in &edits {
            let image = &file.images[*index];
            for (document, pointer) in &image.pointers {
                let place = models_meant[*document].pointer_mut(pointer).unwrap();
                prop_assert_eq!(&*place, &Value::String(image.value.clone()), "{}", pointer);
                *place = Value::String(as_read(image, value));
            }
        }
        prop_assert_eq!(models(&after).unwrap(), models_meant, "{}", after);

        let others = others_events(&after).unwrap();
        prop_assert_eq!(others.len(), others_meant.len());
        let mut changed = Vec::new();
        for (meant, read) in others_meant.iter_mut().zip(&others) {
            prop_assert_eq!(&meant.0, &read.0);
            if meant.1 != read.1 {
                changed.extend(read.1.clone());
            }
        }
        let wanted: Vec<String> = edits.iter()
            .map(|(index, value)| (as_read(&file.images[*index], value), &file.images[*index].value))
            .filter(|(new, old)| new != *old)
            .map(|(new, _)| new)
            .collect();
        prop_assert_eq!(changed, wanted);

        let spans = |of: &str| image_scalars(of.as_bytes()).unwrap().into_iter().map(|found| found.span).collect::<Vec<_>>();
        prop_assert_eq!(between(&file.text, &spans(&file.text)), between(&after, &spans(&after)));
    }

    #[test]
    fn p7_no_damage_makes_an_edit_change_anything_else(
        file in file(),
        damage in prop::collection::vec((any::<Index>(), 0..4_u8, any::<u8>(), select(b"\n\r\t :#-?&*!|>'\"[]{},%@~aimge\\".to_vec())), 1..4),
    ) {
        let mut bytes = file.text.into_bytes();
        for (at, kind, any, sign) in damage {
            let at = at.index(bytes.len());
            match kind {
                0 => bytes[at] ^= any,
                1 => { bytes.remove(at); }
                2 => bytes.insert(at, sign),
                _ => bytes[at] = sign,
            }
        }
        let Ok(found) = image_scalars(&bytes) else {
            return Ok(());
        };
        let edits: Vec<_> = (0..found.len()).map(|index| (index, format!("changed:v{index}"))).collect();
        let Ok(after) = replace(&bytes, &edits) else {
            return Ok(());
        };
        let (before, after) = (String::from_utf8(bytes).unwrap(), String::from_utf8(after).unwrap());
        let spans = |of: &str| image_scalars(of.as_bytes()).unwrap().into_iter().map(|found| found.span).collect::<Vec<_>>();
        prop_assert_eq!(between(&before, &spans(&before)), between(&after, &spans(&after)));
        if let Some(before) = models(&before) {
            let after = models(&after).expect("it could be read before");
            prop_assert_eq!(before.len(), after.len());
            for (before, after) in before.iter().zip(&after) {
                prop_assert!(same_but_for_images(before, after), "{} {}", before, after);
            }
        }
    }

    #[test]
    fn p13_no_text_at_all_makes_the_readers_fail_otherwise_than_by_an_error(
        text in "[-?:,{}#&*!|>'\"%@` \\n\\r\\timage<é]{0,60}",
        value in new_value(),
    ) {
        if let Ok(found) = image_scalars(text.as_bytes()) {
            for (index, image) in found.iter().enumerate() {
                prop_assert!(text.get(image.span.clone()).is_some());
                let _ = replace(text.as_bytes(), &[(index, value.clone())]);
            }
        }
        let written = Written::parse(&text);
        let _ = written.with(&Change { new_tag: Some("v1".to_owned()), ..Change::default() });
        let _ = (normal_name(&text), normal_name(&value));
    }

    #[test]
    fn a_changed_reference_reads_back_as_changed(
        value in reference(),
        new_name in prop::option::of("[a-z]{1,5}(/[a-z]{1,4})?"),
        new_tag in prop::option::of("[a-z0-9_][a-z0-9_.-]{0,5}"),
        digest in prop::option::of("sha256:[0-9a-f]{64}"),
    ) {
        let before = Written::parse(&value);
        let change = Change { new_name, new_tag, digest };
        let Ok(after) = before.with(&change) else {
            return Ok(());
        };
        let after = Written::parse(&after);
        prop_assert_eq!(&after.name.text, change.new_name.as_ref().unwrap_or(&before.name.text));
        if change.new_tag.is_none() && change.digest.is_none() {
            prop_assert_eq!((&after.tag, &after.digest), (&before.tag, &before.digest));
        } else {
            let literal = |text: &String| Part { text: text.clone(), variables: Vec::new() };
            let tag = change.new_tag.as_ref().map_or(Tag::Absent, |tag| Tag::Written(literal(tag)));
            prop_assert_eq!(after.tag, tag);
            prop_assert_eq!(after.digest, change.digest.as_ref().map(literal));
        }
    }
}

fn image_like(value: &str) -> bool {
    value.starts_with(|c: char| c.is_ascii_lowercase() || c == '$')
        && value.chars().all(|c| c.is_ascii_alphanumeric() || "/:.@${}-".contains(c))
}

fn same_but_for_images(before: &Value, after: &Value) -> bool {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => {
            before.len() == after.len()
                && before
                    .iter()
                    .all(|(key, value)| after.get(key).is_some_and(|after| same_but_for_images(value, after)))
        }
        (Value::Array(before), Value::Array(after)) => {
            before.len() == after.len()
                && before.iter().zip(after).all(|(before, after)| same_but_for_images(before, after))
        }
        (_, Value::String(after)) if after.starts_with("changed:v") => true,
        _ => before == after,
    }
}
