//! OFAC's legacy delimited layout: `sdn.csv`, `alt.csv`, `add.csv`, without header; `-0-` is null; a control character
//! 26 may end a file. Field order by OFAC's "Data specification, SDN delimited files".

use std::collections::BTreeMap;

use super::remarks::read_remarks;
use super::{Entry, EntryKind, ListError, Quality, check_name};

const SDN: &str = "sdn.csv";
const ALT: &str = "alt.csv";
const ADD: &str = "add.csv";

/// Reads the entries with their further names and addresses.
pub fn parse(sdn: &[u8], alt: Option<&[u8]>, add: Option<&[u8]>) -> Result<Vec<Entry>, ListError> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    // ent_num, name, type, program, title, call sign, vessel type, tonnage, GRT, flag, owner, remarks
    rows::<12>(SDN, sdn, |[id, name, kind, _, _, _, _, _, _, flag, _, remarks]| {
        let id = id.ok_or("the entry has no number")?;
        let name = name.ok_or("the entry has no name")?;
        check_name(&name)?;
        let kind = match kind.as_deref().map(str::to_ascii_lowercase).as_deref() {
            None => EntryKind::Entity,
            Some("individual") => EntryKind::Person,
            Some("vessel") => EntryKind::Vessel,
            Some("aircraft") => EntryKind::Aircraft,
            Some(_) => return Err("the type is none of individual, vessel, aircraft or null".to_owned()),
        };
        if places.insert(id.clone(), entries.len()).is_some() {
            return Err(format!("the number {id} stands twice"));
        }
        let mut entry = Entry::new(id, kind, name);
        flag.iter().for_each(|flag| entry.of_country(flag));
        if let Some(remarks) = remarks {
            read_remarks(&mut entry, &remarks);
        }
        entries.push(entry);
        Ok(())
    })?;
    // ent_num, alt_num, alt_type, alt_name, remarks
    rows::<5>(ALT, alt.unwrap_or_default(), |[id, _, kind, name, _]| {
        let entry = entry_of(&mut entries, &places, id)?;
        let name = name.ok_or("the name is missing")?;
        check_name(&name)?;
        let quality = match kind.as_deref() {
            Some("fka") => Quality::Former,
            Some("aka" | "nka") | None => Quality::Strong,
            Some(_) => return Err("the type is none of aka, fka, nka".to_owned()),
        };
        // A name that the remarks call weak is strong where it stands here.
        entry.names.retain(|known| known.name != name || known.quality == Quality::Primary);
        entry.also(&name, quality);
        Ok(())
    })?;
    // ent_num, add_num, address, city, country, remarks
    rows::<6>(ADD, add.unwrap_or_default(), |[id, _, _, _, country, _]| {
        let entry = entry_of(&mut entries, &places, id)?;
        country.iter().for_each(|country| entry.of_country(country));
        Ok(())
    })?;
    Ok(entries)
}

fn entry_of<'a>(
    entries: &'a mut [Entry],
    places: &BTreeMap<String, usize>,
    id: Option<String>,
) -> Result<&'a mut Entry, String> {
    let id = id.ok_or("the number is missing")?;
    places.get(&id).and_then(|place| entries.get_mut(*place)).ok_or_else(|| {
        format!("there is no entry {} in {SDN}", id.chars().filter(char::is_ascii_digit).take(20).collect::<String>())
    })
}

/// Hands each row of exactly `N` fields on; `-0-` and blanks are none.
fn rows<const N: usize>(
    file: &'static str,
    content: &[u8],
    mut take: impl FnMut([Option<String>; N]) -> Result<(), String>,
) -> Result<(), ListError> {
    let end = content.iter().rposition(|byte| !matches!(byte, 0x1a | b'\r' | b'\n' | b' ')).map_or(0, |last| last + 1);
    let content = content[..end].strip_prefix(b"\xef\xbb\xbf").unwrap_or(&content[..end]);
    // What follows an open quotation mark would be one field: rows would vanish in it.
    if content.iter().filter(|byte| **byte == b'"').count() % 2 == 1 {
        let line = 1 + content.iter().filter(|byte| **byte == b'\n').count() as u64;
        let what = "a quotation mark in the file is not closed: it may be cut off".to_owned();
        return Err(ListError::Line { file, line, what });
    }
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(content);
    let mut record = csv::StringRecord::new();
    loop {
        let at = |line: u64, what: String| ListError::Line { file, line, what };
        match reader.read_record(&mut record) {
            Ok(false) => return Ok(()),
            Ok(true) => {}
            Err(error) => {
                let line = error.position().map_or(0, csv::Position::line);
                let what = match error.kind() {
                    csv::ErrorKind::Utf8 { .. } => "this is not UTF-8".to_owned(),
                    _ => "this is not a row of comma-separated values".to_owned(),
                };
                return Err(at(line, what));
            }
        }
        let line = record.position().map_or(0, csv::Position::line);
        if record.len() != N {
            return Err(at(line, format!("the row has {} fields: expected {N}", record.len())));
        }
        let mut fields = std::array::from_fn(|_| None);
        for (field, text) in fields.iter_mut().zip(&record) {
            let text = text.trim();
            if text.contains(['\n', '\r']) {
                return Err(at(line, "a field goes over several lines".to_owned()));
            }
            *field = (!text.is_empty() && text != "-0-").then(|| text.to_owned());
        }
        take(fields).map_err(|what| at(line, what))?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::list::{IdKind, ListedName};

    const SDN_FILE: &[u8] = br#"7,"EXAMPLE, Ivan","individual","TEST",-0- ,-0- ,-0- ,-0- ,-0- ,-0- ,-0- ,"DOB 08 Jan 1965; nationality Russia; Passport AB123456 (Iran) expires 31 Aug 2020; a.k.a. 'THE SAMPLE'."
9,"NONESUCH SHIPPING, S.A.",-0- ,"TEST",-0- ,-0- ,-0- ,-0- ,-0- ,-0- ,-0- ,-0- 
11,"GRAY EXAMPLE","vessel","TEST",-0- ,"ABCD","Tanker",-0- ,-0- ,"Malta",-0- ,"Vessel Registration Identification IMO 9187629."
"#;

    #[test]
    fn entries_have_names_countries_dates_and_identifiers() {
        let alt = b"7,1,\"aka\",\"PROBA, Vanya\",-0- \r\n9,2,\"fka\",\"OLD NONESUCH\",-0- \r\n\x1a";
        let add = b"9,1,\"1 Road\",\"Havana\",\"Cuba\",-0- \n9,2,-0- ,-0- ,\"undetermined\",-0- \n";
        let mut file = SDN_FILE.to_vec();
        file.push(0x1a);
        let entries = parse(&file, Some(alt), Some(add)).unwrap();
        assert_eq!(entries.len(), 3);
        let ivan = &entries[0];
        assert_eq!((ivan.id.as_str(), ivan.kind, ivan.primary()), ("7", EntryKind::Person, "EXAMPLE, Ivan"));
        let named = |name: &str, quality| ListedName { name: name.to_owned(), quality };
        assert_eq!(ivan.names[1..], [named("THE SAMPLE", Quality::Weak), named("PROBA, Vanya", Quality::Strong)]);
        assert_eq!(ivan.born[0].to_string(), "1965-01-08");
        assert_eq!(ivan.countries, ["RU"]);
        assert_eq!(ivan.identifiers[0].country.as_deref(), Some("IR"));
        assert_eq!((entries[1].kind, &entries[1].countries[..]), (EntryKind::Entity, &["CU".to_owned()][..]));
        assert_eq!(entries[1].names[1].quality, Quality::Former);
        assert_eq!((entries[2].kind, &entries[2].countries[..]), (EntryKind::Vessel, &["MT".to_owned()][..]));
        assert_eq!(entries[2].identifiers[0].kind, IdKind::Imo);
        assert_eq!(parse(SDN_FILE, None, None).unwrap()[1].names.len(), 1, "the other files may be missing");
    }

    #[test]
    fn a_bad_file_is_refused_with_its_line() {
        let good = SDN_FILE;
        let with = |row: &str| [good, row.as_bytes()].concat();
        for (sdn, alt, file, line) in [
            (with("12,\"SHORT\",-0- \n"), &b""[..], SDN, 4),
            (with("7,\"TWICE\",-0- ,-0- ,-0- ,-0- ,-0- ,-0- ,-0- ,-0- ,-0- ,-0- \n"), b"", SDN, 4),
            (with("13,-0- ,-0- ,-0- ,-0- ,-0- ,-0- ,-0- ,-0- ,-0- ,-0- ,-0- \n"), b"", SDN, 4),
            (with("13,\"X\",\"robot\",-0- ,-0- ,-0- ,-0- ,-0- ,-0- ,-0- ,-0- ,-0- \n"), b"", SDN, 4),
            (with("13,\"???\",-0- ,-0- ,-0- ,-0- ,-0- ,-0- ,-0- ,-0- ,-0- ,-0- \n"), b"", SDN, 4),
            // A quotation mark that is not closed would take what follows into the remarks.
            (good[..good.len() - 3].to_vec(), b"", SDN, 3),
            (with("12,\"A\",-0- ,-0- ,-0- ,-0- ,-0- ,-0- ,-0- ,-0- ,-0- ,\"DOB 1965\n13,B,-0- ,-0- \"\n"), b"", SDN, 4),
            (good.to_vec(), b"7,1,\"aka\",\"A\",-0- \n8,2,\"aka\",\"B\",-0- \n", ALT, 2),
            (good.to_vec(), b"7,1,\"aka\",-0- ,-0- \n", ALT, 1),
            (good.to_vec(), b"7,1,\"aka\",\"M\xfcller\",-0- \n", ALT, 1),
            (good.to_vec(), b"7,1,\"alias\",\"A\",-0- \n", ALT, 1),
        ] {
            let error = parse(&sdn, Some(alt), None).unwrap_err();
            assert!(matches!(&error, ListError::Line { file: f, line: l, .. } if (*f, *l) == (file, line)), "{error}");
        }
    }
}
