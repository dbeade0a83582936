//! Every kind of address and of URL that is refused, by table.

use super::*;

fn policy(allow_loopback: bool) -> Policy {
    Policy { allow_loopback, ports: BTreeSet::from([443, 8443]) }
}

#[test]
fn special_addresses_are_told_by_kind() {
    use Kind::*;
    let table: &[(&str, Kind)] = &[
        ("0.0.0.0", Unspecified),
        ("0.255.255.255", Unspecified),
        ("10.0.0.0", Private),
        ("10.255.255.255", Private),
        ("100.64.0.0", CarrierNat),
        ("100.127.255.255", CarrierNat),
        ("100.100.100.200", CarrierNat),
        ("127.0.0.1", Loopback),
        ("127.255.255.255", Loopback),
        ("168.63.129.16", Metadata),
        ("169.254.0.0", LinkLocal),
        ("169.254.169.254", LinkLocal),
        ("169.254.170.2", LinkLocal),
        ("172.16.0.0", Private),
        ("172.31.255.255", Private),
        ("192.0.0.0", Protocol),
        ("192.0.0.192", Protocol),
        ("192.0.2.1", Documentation),
        ("192.88.99.1", SixToFour),
        ("192.168.0.0", Private),
        ("192.168.255.255", Private),
        ("198.18.0.0", Benchmarking),
        ("198.19.255.255", Benchmarking),
        ("198.51.100.255", Documentation),
        ("203.0.113.0", Documentation),
        ("224.0.0.0", Multicast),
        ("239.255.255.255", Multicast),
        ("240.0.0.0", Reserved),
        ("255.255.255.254", Reserved),
        ("255.255.255.255", Broadcast),
        ("::", Unspecified),
        ("::1", Loopback),
        ("::2", EmbeddedV4),
        ("::127.0.0.1", EmbeddedV4),
        ("::93.184.215.14", EmbeddedV4),
        ("::ffff:127.0.0.1", EmbeddedV4),
        ("::ffff:93.184.215.14", EmbeddedV4),
        ("::ffff:a9fe:a9fe", EmbeddedV4),
        ("::ffff:0:169.254.169.254", EmbeddedV4),
        ("64:ff9b::7f00:1", Nat64),
        ("64:ff9b::ffff:ffff", Nat64),
        ("64:ff9b:1::", Nat64),
        ("64:ff9b:1:ffff:ffff:ffff:ffff:ffff", Nat64),
        ("64:ff9b:2::", Reserved),
        ("100::1", Discard),
        ("100:0:0:1::1", Reserved),
        ("2001::1", Teredo),
        ("2001:0:ffff:ffff:ffff:ffff:ffff:ffff", Teredo),
        ("2001:2::1", Benchmarking),
        ("2001:10::1", Protocol),
        ("2001:20::1", Protocol),
        ("2001:1ff:ffff::1", Protocol),
        ("2001:db8::1", Documentation),
        ("2002::", SixToFour),
        ("2002:7f00:1::", SixToFour),
        ("2002:ffff:ffff:ffff:ffff:ffff:ffff:ffff", SixToFour),
        ("3fff::1", Documentation),
        ("3fff:fff:ffff::1", Documentation),
        ("fc00::", UniqueLocal),
        ("fd00:ec2::254", UniqueLocal),
        ("fd20:ce::254", UniqueLocal),
        ("fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", UniqueLocal),
        ("fe80::1", LinkLocal),
        ("febf::1", LinkLocal),
        ("fec0::1", UniqueLocal),
        ("ff02::1", Multicast),
        ("4000::1", Reserved),
        ("5f00::1", Reserved),
        ("1fff::1", Reserved),
    ];
    for (text, expected) in table {
        assert_eq!(kind(text.parse().unwrap()), Some(*expected), "{text}");
        let refusal = check(&[text.parse().unwrap()], Reach::Public).unwrap_err();
        assert!(refusal.0.contains(&expected.to_string()), "{refusal}");
    }
}

#[test]
fn addresses_beside_the_blocks_are_public() {
    for text in [
        "1.1.1.1",
        "9.255.255.255",
        "11.0.0.0",
        "93.184.215.14",
        "100.63.255.255",
        "100.128.0.0",
        "126.255.255.255",
        "128.0.0.0",
        "168.63.129.15",
        "169.253.255.255",
        "169.255.0.0",
        "172.15.255.255",
        "172.32.0.0",
        "192.0.1.0",
        "192.167.255.255",
        "192.169.0.0",
        "198.17.255.255",
        "198.20.0.0",
        "223.255.255.255",
        "2001:200::1",
        "2001:db7:ffff::1",
        "2001:db9::1",
        "2003::1",
        "2606:4700::1111",
        "3ffe::1",
        "3fff:1000::1",
    ] {
        assert_eq!(kind(text.parse().unwrap()), None, "{text}");
    }
}

#[test]
fn all_addresses_of_a_host_count() {
    let ips = |texts: &[&str]| texts.iter().map(|t| t.parse().unwrap()).collect::<Vec<IpAddr>>();
    assert!(check(&ips(&["1.1.1.1", "2606:4700::1111"]), Reach::Public).is_ok());
    assert!(check(&ips(&["1.1.1.1", "10.0.0.1"]), Reach::Public).is_err());
    assert!(check(&[], Reach::Public).is_err());
    assert!(check(&ips(&["127.0.0.1", "::1"]), Reach::Loopback).is_ok());
    assert!(check(&ips(&["127.0.0.1", "1.1.1.1"]), Reach::Loopback).is_err());
    assert!(check(&ips(&["127.0.0.1"]), Reach::Public).is_err());
    assert!(check(&ips(&["10.0.0.1"]), Reach::Loopback).is_err());
}

#[test]
fn urls_that_lead_elsewhere_are_refused() {
    for url in [
        "",
        "bank.example.com/hook",
        "ftp://bank.example.com/",
        "file:///etc/passwd",
        "gopher://bank.example.com/",
        "http://bank.example.com/",
        "https://bank.example.com:22/",
        "https://bank.example.com:0/",
        "https://user@bank.example.com/",
        "https://user:pass@bank.example.com/",
        "https://:@bank.example.com/",
        "https://@bank.example.com/",
        "https://bank.example.com@10.0.0.1/",
        "https://1.1.1.1@10.0.0.1/",
        "https://bank.example.com#@10.0.0.1/",
        "https://bank.example.com/#here",
        "https://bank.example.com\\@10.0.0.1/",
        "https://bank.example.com/a b",
        " https://bank.example.com/",
        "https://bank.exa\tmple.com/",
        "https://bank.example.com/\r\nX: y",
        "https:///path",
        "https://localhost/",
        "https://LOCALHOST./",
        "https://a.localhost/",
        "https://intranet/",
        "https://printer.local/",
        "https://metadata.google.internal/",
        "https://10.0.0.1/",
        "https://169.254.169.254/latest/meta-data/",
        "https://127.0.0.1/",
        "https://127.1/",
        "https://0/",
        "https://0x7f.1/",
        "https://0x7f000001/",
        "https://2130706433/",
        "https://0177.0.0.1/",
        "https://017700000001/",
        "https://127.0.0.1./",
        "https://010.0.0.1/",
        "https://1.1.257/",
        "https://0x1010101/",
        "https://01.1.1.1/",
        "https://%31.1.1.1/",
        "https://１.1.1.1/",
        "https://①.1.1.1/",
        "https://１２７.0.0.1/",
        "https://[::1]/",
        "https://[::]/",
        "https://[::ffff:127.0.0.1]/",
        "https://[::ffff:7f00:1]/",
        "https://[64:ff9b::a9fe:a9fe]/",
        "https://[2002:a00:1::]/",
        "https://[2001:0:1::]/",
        "https://[fe80::1]/",
        "https://[fe80::1%25eth0]/",
        "https://[fd00::1]/",
        "https://1.2.3.4.5/",
        "https://256.1.1.1/",
    ] {
        assert!(Target::parse(url, &policy(false)).is_err(), "{url}");
    }
    let long = format!("https://bank.example.com/{}", "a".repeat(MAX_URL));
    assert!(Target::parse(&long, &policy(false)).is_err());
    // Loopback that is allowed is the loopback that says so.
    for url in
        ["https://a.localhost/", "https://127.1/", "https://[::ffff:127.0.0.1]/", "http://10.0.0.1/", "http://0/"]
    {
        assert!(Target::parse(url, &policy(true)).is_err(), "{url}");
    }
}

#[test]
fn public_urls_are_taken() {
    for (url, host, port) in [
        ("https://bank.example.com/hooks?x=a@b", "bank.example.com", 443),
        ("HTTPS://Bank.Example.COM", "bank.example.com", 443),
        ("https://bank.example.com:8443/", "bank.example.com", 8443),
        ("https://bücher.example.com/", "xn--bcher-kva.example.com", 443),
        ("https://1.1.1.1/", "1.1.1.1", 443),
        ("https://[2606:4700:0::1111]/", "2606:4700::1111", 443),
    ] {
        let target = Target::parse(url, &policy(false)).unwrap_or_else(|e| panic!("{url}: {e}"));
        assert_eq!((target.host.as_str(), target.port, target.tls, target.reach), (host, port, true, Reach::Public));
    }
}

#[test]
fn loopback_is_taken_where_it_is_allowed() {
    for (url, port) in [
        ("http://127.0.0.1:4000/hook", 4000),
        ("http://localhost:4000/", 4000),
        ("https://[::1]:4000/", 4000),
        ("http://127.0.0.2/", 80),
    ] {
        assert!(Target::parse(url, &policy(false)).is_err(), "{url}");
        let target = Target::parse(url, &policy(true)).unwrap();
        assert_eq!((target.port, target.reach), (port, Reach::Loopback), "{url}");
    }
}
