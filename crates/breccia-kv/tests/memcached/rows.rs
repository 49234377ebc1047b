//! Inputs that every memcached listener must answer as a real memcached does, whatever is behind it.
//!
//! Each row is one client's whole input. Invariant: a row leaves no key behind that another row's
//! answers depend on, except within its own list.

/// The classic commands.
pub(crate) const TEXT: &[&str] = &[
    "get k\r\nset k 7 0 3\r\nabc\r\nget k\r\ngets k\r\nget k k nope k\r\n",
    "add k 0 0 1\r\nx\r\nadd k2 0 0 1\r\ny\r\nreplace k2 4294967295 0 0\r\n\r\nget k2\r\n",
    "replace nope 0 0 1\r\nx\r\nappend nope 0 0 1\r\nx\r\nprepend nope 0 0 1\r\nx\r\n",
    "append k 9 9 2\r\nde\r\nprepend k 9 9 2\r\nyz\r\ngets k\r\nmg k v f t\r\n",
    "cas k 0 0 1 999999\r\nx\r\ncas k 0 0 1 0\r\nx\r\ncas nope 0 0 1 5\r\nx\r\n",
    "delete k\r\ndelete k\r\ndelete k2 0\r\ndelete k noreply\r\nget k k2\r\n",
    "set n 5 0 3\r\n100\r\ndecr n 1\r\nget n\r\nincr n 1\r\nget n\r\ndecr n 200\r\nget n\r\n",
    "set n 5 0 20\r\n18446744073709551615\r\nincr n 2\r\nget n\r\nincr n 18446744073709551615\r\n",
    "set n 0 0 4\r\n1 2x\r\nincr n 1\r\nget n\r\nset n 0 0 4\r\n  12\r\nincr n 1\r\nget n\r\n",
    "set n 0 0 2\r\n-5\r\nincr n 1\r\nset n 0 0 0\r\n\r\nincr n 1\r\nset n 0 0 2\r\n1x\r\nincr n 1\r\n",
    "set n 0 0 21\r\n118446744073709551615\r\nincr n 1\r\nset n 0 0 2\r\n+7\r\ndecr n 1\r\nget n\r\n",
    "set n 0 0 22\r\n0000000000000000000005\r\nincr n 1\r\nget n\r\nincr nope 1\r\ndecr nope 1\r\n",
    "set t 1 100 1\r\nx\r\nmg t t\r\ntouch t 0\r\nmg t t\r\ntouch nope 0\r\ntouch t -1\r\nget t\r\n",
    "set t 1 -1 1\r\nx\r\nget t\r\nset t 1 2592001 1\r\nx\r\nget t\r\nset t 1 2147483648 1\r\nx\r\nget t\r\n",
    "set t 1 0 1\r\nx\r\ngat 100 t nope t\r\nmg t t\r\ngats 0 t\r\nmg t t\r\ngat -1 t\r\nget t\r\ngat 5\r\n",
    "set a 0 0 1\r\n1\r\nflush_all\r\nget a\r\nset a 0 0 1\r\n1\r\nflush_all -1\r\nget a\r\n",
    "mn\r\nversion\r\nverbosity 1\r\nshutdown\r\nmn\r\nstats reset\r\nstats nothing\r\n",
    "set a 0 0 1\r\n1\r\nquit\r\nmn\r\n",
    "set a 0 0 2 noreply\r\n11\r\nincr a 1 noreply\r\nincr a x noreply\r\nget a\r\ntouch a 5 noreply\r\n",
    "append a 0 0 2 noreply\r\nzz\r\nincr a 1 noreply\r\nadd a 0 0 1 noreply\r\nx\r\nget a\r\nmn\r\n",
    "delete a noreply\r\nflush_all noreply\r\nverbosity 1 noreply\r\ncas a 0 0 1 5 noreply\r\nx\r\nmn\r\n",
];

/// The meta commands.
pub(crate) const META: &[&str] = &[
    "mg k\r\nmg k v k O1\r\nmg k q\r\nms k 3\r\nabc\r\nmg k\r\nmg k s v k t c f O1 q u\r\n",
    "ms k 3 c k O1 T100 F9\r\nabc\r\nmg k t f\r\nms k 1 q\r\nx\r\nms k 1 q c\r\nx\r\nmn\r\n",
    "ms k 1 ME c k\r\nz\r\nms n 1 MR k c\r\nz\r\nms n 1 MA c\r\nz\r\nms n 1 MP O1\r\nz\r\nms n 1 C5 k c\r\nz\r\n",
    "ms n 1 MA C5 c\r\nz\r\nms n 1 MR C5 c\r\nz\r\nms n 1 ME C5 c\r\nz\r\nms n 1 MR C0\r\nz\r\nmd n\r\n",
    "ms k 1 T-1\r\nx\r\nmg k\r\nms k 0 F5 T0\r\n\r\nmg k v s f\r\nms k 2 MA F7 T7\r\nyz\r\nmg k v f t\r\n",
    "mg k t T100\r\nmg k T200 t\r\nmg k T0 v t\r\nmg nope T100 t k\r\nmg k T5 q\r\n",
    "md k q\r\nmd k q\r\nmd k q k O1\r\nms k 1\r\nx\r\nmd k k O1\r\nmd k b\r\n",
    "ma n\r\nma n q\r\nma n k O1 q\r\nma n N0 J5 v\r\nma n v c t k O1\r\nma n D10 v q\r\nma n MD D3 v\r\n",
    "ma m N100 J7 t v\r\nma p t N100 v\r\nma p t\r\nma o N100 T50 t v\r\nma r T50 N100 t v\r\nma r v\r\n",
    "ma q N0 q O1 k\r\nma q N0 q\r\nma q v\r\nma q N0 q v\r\nma w N0 J5 q v k\r\nma w q N0 MX\r\nmn\r\nma w v\r\n",
    "ma m MI v\r\nma m M+ v\r\nma m M- v\r\nma m MD D100 v\r\nmg m v\r\nma m D18446744073709551615 v\r\n",
    "ma e N-1 J4 v\r\nma e v\r\nset s 0 0 1\r\nx\r\nma s\r\nma s q\r\nma s v k O1\r\nma e C5 N0 v\r\n",
    "ms Zm9v 3 b k\r\nabc\r\nget foo\r\nmg Zm9v b k v\r\nmg Zm8= b k\r\nmg Zm9vZg==Zg== b k\r\nmg Zm=v b k\r\n",
    "ma YmFy b N0 k v\r\nma YmFy b k\r\nget bar\r\nmd YmFy b k\r\nmd YmFy b k\r\nms YmFy 1 b q\r\n1\r\nget bar\r\n",
    "mg foo v P L Pxx\r\nmg foo P1 L2\r\nmg foo I M D\r\nmg foo I MZ C5 F5 J5 D5\r\nmg foo MX\r\n",
    "set fo 0 0 1\r\nx\r\nmg fo vxyz\r\nmg fo qxyz kxyz\r\nmg nope qxyz kxyz Oxyz\r\nmn extra\r\n",
];

/// Faulty requests of every kind.
pub(crate) const MALFORMED: &[&str] = &[
    "set k 0 0 1\r\nabc\r\nmn\r\n",
    "set k 0 0 1 noreply\r\nabc\r\nmn\r\n",
    "set k 0 0 5\r\nhello\nmn\r\nmn\r\n",
    "set k 0 0 1\r\n\r\nmn\r\nmn\r\n",
    "set k 0 0 a\r\nmn\r\n",
    "set k x 0 1\r\nmn\r\n",
    "set k 0 x 1\r\nmn\r\n",
    "set k 0 0 -1\r\nmn\r\n",
    "set k 0 0\r\nmn\r\n",
    "set k 0 0 1 2 3\r\nmn\r\n",
    "set k 0 0 noreply\r\nmn\r\n",
    "set k 0 0 x noreply\r\nmn\r\n",
    "set k -1 0 1\r\na\r\nmn\r\n",
    "set k 4294967296 0 1\r\na\r\nget k\r\n",
    "set k 0 0 4294967297\r\na\r\nget k\r\n",
    "set k +7 0 +1\r\na\r\nget k\r\n",
    "set k 01 0 01\r\na\r\nget k\r\n",
    "set k 0 0 2147483646\r\nmn\r\n",
    "cas k 0 0 1\r\na\r\nmn\r\n",
    "cas k 0 0 1 x\r\nmn\r\n",
    "set k 0 0 1 foo\r\na\r\nincr k 1 foo\r\ntouch k 0 foo\r\nmn\r\n",
    "get\r\ngat\r\ngats\r\ngat x k\r\nget k\nmn\nget k\0z\r\n  get  k  \r\nget k\t\r\n",
    "\r\n\n\nx\r\nMN\r\nGET k\r\nmx\r\nmnx\r\nbget k\r\nmgx k\r\n",
    "incr k x\r\nincr k x noreply\r\nincr k\r\nincr k -1\r\nincr k 1 2 3\r\nincr noreply\r\n",
    "delete\r\ndelete k 5\r\ndelete k 5 noreply\r\ndelete a b c d\r\ndelete k 0 noreply\r\nmn\r\n",
    "touch k\r\ntouch k x\r\ntouch k x noreply\r\ntouch\r\ntouch k 1 2 3\r\nmn\r\n",
    "flush_all x\r\nflush_all x noreply\r\nflush_all noreply 1\r\nflush_all 1 2 3\r\nmn\r\n",
    "verbosity\r\nverbosity x\r\nverbosity noreply\r\nverbosity 1 2 3\r\nmn\r\n",
    "mg\r\nms\r\nmd\r\nma\r\nme\r\nms k\r\nms k x\r\nabc\r\nms k -1\r\nms k S1\r\na\r\n",
    "ms k 1\r\nabc\r\nms k 1 q\r\nabc\r\nms k 1 q k\r\nabc\r\nmn\r\n",
    "ms k 3 !\r\nabc\r\nms k 3 q q\r\nabc\r\nms k 3 Fx\r\nabc\r\nms k 3 Fx Tx\r\nabc\r\nmn\r\n",
    "ms k 3 Tx Fx\r\nabc\r\nms k 3 M\r\nabc\r\nms k 3 MZ\r\nabc\r\nms k 3 Tx !\r\nabc\r\nmn\r\n",
    "ms k 3 b\r\nabc\r\nms k 3 b !\r\nabc\r\nms k 3 \u{ff}\r\nabc\r\nms k 3 T\r\nabc\r\nmn\r\n",
    "mg k !\r\nmg k k k\r\nmg k q q\r\nmg k T\r\nmg k Tx\r\nmg k N\r\nmg k Rx\r\nmg k Jx\r\nmg k Dx\r\n",
    "mg k M\r\nmg k Cx\r\nmg k Fx\r\nmg k ! q q\r\nmg k q q !\r\nmg k Zm8 b\r\nmg Zm8 b\r\nmg !! b\r\n",
    "md k !\r\nmd k k k\r\nmd Zm8 b\r\nma k !\r\nma k Dx\r\nma k MZ\r\nma k D-1\r\nma k MZ !\r\n",
    "ms k 2147483647\r\nmn\r\nms k 2147483646\r\nmn\r\nms k 1 2\r\na\r\nmn\r\n",
];

/// What depends on state that only memcached keeps with an item.
pub(crate) const SERVERS_ONLY: &[&str] = &[
    "mg v N300 t\r\nmg v N300 t v\r\nms v 1 T30\r\na\r\nmg v R600\r\nmg v R600 q\r\nmg v R600 v\r\n",
    "ms k 1 F5 I\r\na\r\nmd k I T300\r\nmg k v\r\nmg k v q\r\nms k 1 C1 I c\r\nb\r\nmg k v h l\r\n",
    "me nope\r\nme Zm9v b\r\nflush_all 1000\r\nget k\r\nflush_all\r\nget k\r\n",
    "ms k 1\r\na\r\nmg k h l u\r\nmg k h l\r\nmg k h l\r\nms Zm9v 1 b\r\nx\r\nmg foo k v\r\n",
];
