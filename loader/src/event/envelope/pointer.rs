//! Finds the values at some JSON pointers (RFC 6901) in one pass over a document, without building the rest of it.

use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{Field, Key};

/// A JSON pointer to something within an object, as its steps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pointer(Vec<String>);

impl Pointer {
    /// Reads `/a/b`; `~1` stands for a slash and `~0` for a tilde.
    pub fn new(text: &str) -> Result<Self, String> {
        let Some(path) = text.strip_prefix('/') else {
            return Err(format!("{text} is no JSON pointer: it must begin with a slash, such as /messageId"));
        };
        let step = |step: &str| {
            let bad = step.split('~').skip(1).any(|rest| !rest.starts_with(['0', '1']));
            if bad {
                return Err(format!("{text} is no JSON pointer: ~ must be followed by 0 or 1"));
            }
            Ok(step.replace("~1", "/").replace("~0", "~"))
        };
        path.split('/').map(step).collect::<Result<_, _>>().map(Pointer)
    }

    /// The steps of the way there.
    pub fn steps(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// The name of the member that it points to; `None` for something below a member.
    pub fn member(&self) -> Option<&str> {
        if let [name] = self.0.as_slice() { Some(name) } else { None }
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|step| write!(f, "/{}", step.replace('~', "~0").replace('/', "~1")))
    }
}

/// The pointers as a tree by their steps; each leaf is the number of a pointer.
#[derive(Clone, Debug, Default)]
pub(super) struct Tree {
    slots: Vec<usize>,
    children: Vec<(String, Tree)>,
}

impl Tree {
    /// Adds a pointer whose value is to go to this slot.
    pub(super) fn insert(&mut self, pointer: &Pointer, slot: usize) {
        let mut node = self;
        for step in &pointer.0 {
            let at = match node.children.iter().position(|(name, _)| name == step) {
                Some(at) => at,
                None => {
                    node.children.push((step.clone(), Tree::default()));
                    node.children.len() - 1
                }
            };
            node = &mut node.children[at].1;
        }
        node.slots.push(slot);
    }

    fn child(&self, name: &str) -> Option<&Tree> {
        self.children.iter().find(|(step, _)| step == name).map(|(_, child)| child)
    }

    /// Forgets what was found below: a key that comes twice counts with its last value, as in jsonb.
    fn clear(&self, found: &mut [Field<'_>]) {
        for slot in &self.slots {
            found[*slot] = Field::None;
        }
        for (_, child) in &self.children {
            child.clear(found);
        }
    }
}

/// Reads a document and fills the slots of the tree's pointers. Anything but an object at the top is an error of
/// serde_json's class `Data`.
pub(super) fn find<'de>(text: &'de str, tree: &Tree, found: &mut [Field<'de>]) -> serde_json::Result<()> {
    let mut json = serde_json::Deserializer::from_str(text);
    json.deserialize_map(Node { tree, found, top: true })?;
    json.end()
}

struct Node<'t, 'f, 'de> {
    tree: &'t Tree,
    found: &'f mut [Field<'de>],
    top: bool,
}

impl<'de> Node<'_, '_, 'de> {
    fn set(self, value: Field<'de>) {
        for slot in &self.tree.slots {
            self.found[*slot] = value.clone();
        }
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_, '_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.tree.children.is_empty() {
            return Field::deserialize(deserializer).map(|value| self.set(value));
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_, '_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.top { "an object" } else { "any value" })
    }

    // Only where something below it is looked for as well.
    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.set(Field::Text(text.to_owned().into()));
        Ok(())
    }
    fn visit_i64<E>(self, n: i64) -> Result<(), E> {
        self.set(Field::Text(n.to_string().into()));
        Ok(())
    }
    fn visit_u64<E>(self, n: u64) -> Result<(), E> {
        self.set(Field::Text(n.to_string().into()));
        Ok(())
    }
    fn visit_f64<E>(self, number: f64) -> Result<(), E> {
        self.set(Field::Number(number));
        Ok(())
    }
    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        self.set(Field::Other);
        Ok(())
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        for slot in &self.tree.slots {
            self.found[*slot] = Field::Other;
        }
        while let Some(Key(key)) = map.next_key::<Key<'de>>()? {
            match self.tree.child(&key) {
                Some(tree) => {
                    tree.clear(self.found);
                    map.next_value_seed(Node { tree, found: &mut *self.found, top: false })?;
                }
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        for slot in &self.tree.slots {
            self.found[*slot] = Field::Other;
        }
        if self.tree.children.is_empty() {
            while seq.next_element::<IgnoredAny>()?.is_some() {}
            return Ok(());
        }
        let nowhere = Tree::default();
        for index in 0usize.. {
            let tree = self.tree.child(&index.to_string()).unwrap_or(&nowhere);
            if seq.next_element_seed(Node { tree, found: &mut *self.found, top: false })?.is_none() {
                break;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search(pointers: &[&str], text: &str) -> Vec<Option<String>> {
        let mut tree = Tree::default();
        for (slot, pointer) in pointers.iter().enumerate() {
            tree.insert(&Pointer::new(pointer).unwrap(), slot);
        }
        let mut found = vec![Field::None; pointers.len()];
        find(text, &tree, &mut found).unwrap();
        found
            .into_iter()
            .map(|field| match field {
                Field::None => None,
                Field::Text(text) => Some(text.into_owned()),
                _ => Some("OTHER".to_owned()),
            })
            .collect()
    }

    #[test]
    fn values_are_found_at_any_depth() {
        let text =
            r#"{"a":{"b":["x",{"c":7}],"b/c":"slash","~":"tilde"},"d":null,"":"empty","e":1.5,"f":{}}"#;
        let some = |s: &str| Some(s.to_owned());
        assert_eq!(
            search(&["/a/b/0", "/a/b/1/c", "/a/b~1c", "/a/~0", "/d", "/", "/e", "/f", "/g/h", "/a/b"], text),
            [
                some("x"),
                some("7"),
                some("slash"),
                some("tilde"),
                None,
                some("empty"),
                some("OTHER"),
                some("OTHER"),
                None,
                some("OTHER")
            ]
        );
    }

    #[test]
    fn of_a_key_that_comes_twice_the_last_value_counts_with_all_below_it() {
        assert_eq!(search(&["/a/b", "/a/c"], r#"{"a":{"b":1,"c":2},"a":{"c":3}}"#), [None, Some("3".into())]);
        assert_eq!(search(&["/a"], r#"{"a":1,"a":null}"#), [None]);
    }

    #[test]
    fn what_is_no_object_is_an_error() {
        let mut found = [];
        for text in ["1", "[]", "null", "\"x\""] {
            assert!(find(text, &Tree::default(), &mut found).unwrap_err().is_data(), "{text}");
        }
        assert!(find("{}{}", &Tree::default(), &mut found).unwrap_err().is_syntax());
    }

    #[test]
    fn pointers_are_read_and_written_alike() {
        for text in ["/a", "/a/b/0", "/a~1b/~0", "/"] {
            assert_eq!(Pointer::new(text).unwrap().to_string(), text);
        }
        for bad in ["", "a", "a/b", "/a~", "/a~2"] {
            assert!(Pointer::new(bad).is_err(), "{bad}");
        }
    }
}
