//! The extension as the catalogs describe it, to compare what an upgrade left with a fresh install: definitions,
//! rights, comments, flags, and what pg_dump takes along, not only names. The query is in `catalog.sql`.

use std::collections::BTreeMap;

use postgres::Client;

use crate::cluster::rows;

/// Object and property, and its values: several where an object has, say, several dependencies.
pub type Catalog = BTreeMap<(String, String), Vec<String>>;

/// What the catalogs say of the extension in this connection's database, its open transaction included.
pub fn describe(client: &mut Client) -> Catalog {
    let mut catalog = Catalog::new();
    for row in rows(client, include_str!("catalog.sql")) {
        let [object, property, value] = <[String; 3]>::try_from(row).expect("the query has three columns");
        assert_ne!(property, "not described", "catalog.sql does not compare objects of this kind: {value}");
        catalog.entry((object, property)).or_default().push(value);
    }
    catalog
}

/// Where two of them differ, a line for each property.
pub fn differences(upgraded: &Catalog, fresh: &Catalog) -> Vec<String> {
    let none = Vec::new();
    let mut keys: Vec<_> = upgraded.keys().chain(fresh.keys()).collect();
    keys.sort();
    keys.dedup();
    keys.into_iter()
        .map(|key| (key, upgraded.get(key).unwrap_or(&none), fresh.get(key).unwrap_or(&none)))
        .filter(|(_, upgraded, fresh)| upgraded != fresh)
        .map(|((object, property), upgraded, fresh)| {
            format!("{object}, {property}: upgraded {upgraded:?}, fresh {fresh:?}")
        })
        .collect()
}
