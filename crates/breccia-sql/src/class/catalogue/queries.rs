//! What is asked of a database to know its catalogue.
//!
//! Not the reading of the answers. Invariant: every query runs for a role without special rights
//! on PostgreSQL 12 and later, takes no lock beyond reading, and returns only text.

/// The queries, in the order of the numbers that [`super::CatalogueBuilder::row`] takes.
pub const QUERIES: &[&str] = &[
    FUNCTIONS,
    RELATIONS,
    CHILDREN,
    POLICIES,
    OPERATORS,
    TYPES,
    CASTS,
    CALLED_UNNAMED,
    FOLDED,
    TOUCHED,
];

// name, built in, language, volatility, source, keeps settings, defaults, extension, field-like
//
// An aggregate is a query that calls its functions, and what makes a range of its bounds is harmless:
// functions a range names are asked for by themselves. A body of the standard's kind has no source
// of its own: its definition stands for it. A function can be called like a column, `t.f`,
// if one argument is enough for it, and a row fits there: a row's type, any type, one more of the
// last, or what a cast makes of a row by itself.
const FUNCTIONS: &str = "SELECT p.proname::text,
 (n.nspname = 'pg_catalog' AND p.oid < 16384)::text,
 CASE WHEN p.prokind = 'a' AND p.oid >= 16384 THEN 'sql'
  WHEN l.lanname = 'internal' AND p.oid >= 16384
   AND p.prosrc IN ('range_constructor2', 'range_constructor3') THEN 'sql'
  ELSE l.lanname::text END,
 p.provolatile::text,
 CASE WHEN l.lanname = 'sql' AND p.prosrc = '' AND p.oid >= 16384
   THEN pg_catalog.pg_get_functiondef(p.oid)
  WHEN l.lanname IN ('sql', 'plpgsql') THEN p.prosrc
  WHEN p.prokind = 'a' AND p.oid >= 16384 THEN (SELECT 'SELECT '
   || pg_catalog.string_agg(pg_catalog.quote_ident(f.proname::text) || '()', ', ')
   FROM pg_catalog.pg_aggregate a JOIN pg_catalog.pg_proc f ON f.oid IN (a.aggtransfn, a.aggfinalfn,
    a.aggcombinefn, a.aggserialfn, a.aggdeserialfn, a.aggmtransfn, a.aggminvtransfn, a.aggmfinalfn)
   WHERE a.aggfnoid = p.oid)
  WHEN l.lanname = 'internal' AND p.oid >= 16384 THEN 'SELECT 1' END,
 (NOT EXISTS (SELECT 1 FROM pg_catalog.unnest(p.proconfig) AS c(setting)
   WHERE c.setting NOT LIKE 'search\\_path=%'))::text,
 pg_catalog.pg_get_expr(p.proargdefaults, 0)::text,
 (SELECT e.extname::text FROM pg_catalog.pg_depend d
   JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid
   WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.objid = p.oid
   AND d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND d.deptype = 'e' LIMIT 1),
 (p.pronargs >= 1 AND p.pronargs - p.pronargdefaults <= 1 AND (p.provariadic <> 0
   OR EXISTS (SELECT 1 FROM pg_catalog.pg_type t
    WHERE t.oid = p.proargtypes[0] AND t.typtype IN ('c', 'p', 'd'))
   OR EXISTS (SELECT 1 FROM pg_catalog.pg_cast c JOIN pg_catalog.pg_type t ON t.oid = c.castsource
    WHERE c.oid >= 16384 AND c.castcontext = 'i' AND t.typtype IN ('c', 'd'))))::text
 FROM pg_catalog.pg_proc p
 JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
 JOIN pg_catalog.pg_language l ON l.oid = p.prolang";

// oid, name, of the system, kind, persistence, row security, definition of a view
const RELATIONS: &str = "SELECT c.oid::text, c.relname::text,
 (n.nspname IN ('pg_catalog', 'information_schema'))::text,
 c.relkind::text, c.relpersistence::text, c.relrowsecurity::text,
 CASE WHEN c.relkind = 'v' AND n.nspname NOT IN ('pg_catalog', 'information_schema')
   THEN pg_catalog.pg_get_viewdef(c.oid) END
 FROM pg_catalog.pg_class c
 JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind NOT IN ('i', 'I', 'c')";

// parent, child
const CHILDREN: &str = "SELECT i.inhparent::text, i.inhrelid::text FROM pg_catalog.pg_inherits i";

// relation, condition for reading
const POLICIES: &str = "SELECT p.polrelid::text, pg_catalog.pg_get_expr(p.polqual, p.polrelid)
 FROM pg_catalog.pg_policy p WHERE p.polcmd IN ('r', '*')";

// name, built in, function
//
// The planner turns an operator round, or into what it negates.
const OPERATORS: &str = "SELECT DISTINCT o.oprname::text,
 (n.nspname = 'pg_catalog' AND o.oid < 16384)::text,
 CASE WHEN n.nspname = 'pg_catalog' AND o.oid < 16384 THEN NULL ELSE p.proname::text END
 FROM pg_catalog.pg_operator o
 JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace
 LEFT JOIN pg_catalog.pg_proc p ON p.oid = o.oprcode
 UNION SELECT o.oprname::text, 'false', p.proname::text
 FROM pg_catalog.pg_operator o
 JOIN pg_catalog.pg_operator x ON x.oid IN (o.oprcom, o.oprnegate) AND x.oid >= 16384
 JOIN pg_catalog.pg_proc p ON p.oid = x.oprcode";

// name, built in, kind, input function, checks of a domain, types of users it is made of, by lines
const TYPES: &str = "SELECT t.typname::text,
 (n.nspname = 'pg_catalog' AND t.oid < 16384)::text,
 t.typtype::text,
 (SELECT p.proname::text FROM pg_catalog.pg_proc p WHERE p.oid = t.typinput),
 CASE WHEN t.typtype = 'd' AND t.oid >= 16384 THEN
  (SELECT pg_catalog.string_agg(pg_catalog.pg_get_expr(k.conbin, 0), ', ')
   FROM pg_catalog.pg_constraint k WHERE k.contypid = t.oid AND k.contype = 'c') END,
 (SELECT pg_catalog.string_agg(COALESCE(e.typname, b.typname)::text, pg_catalog.chr(10))
  FROM pg_catalog.pg_type b
  LEFT JOIN pg_catalog.pg_type e ON e.oid = b.typelem AND b.typcategory = 'A'
  WHERE b.oid >= 16384 AND (b.oid = t.typbasetype
   OR (t.typtype = 'c' AND b.oid IN (SELECT a.atttypid FROM pg_catalog.pg_attribute a
    WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped))
   OR (t.typtype = 'r' AND b.oid IN (SELECT r.rngsubtype FROM pg_catalog.pg_range r
    WHERE r.rngtypid = t.oid))))
 FROM pg_catalog.pg_type t
 JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
 WHERE NOT (t.typcategory = 'A' AND t.typname LIKE '\\_%')";

// context, function, target type
const CASTS: &str = "SELECT c.castcontext::text, p.proname::text, t.typname::text
 FROM pg_catalog.pg_cast c
 JOIN pg_catalog.pg_proc p ON p.oid = c.castfunc
 JOIN pg_catalog.pg_type t ON t.oid = c.casttarget
 WHERE c.oid >= 16384 OR p.oid >= 16384";

// function, language
//
// What sorting, grouping, comparing and the planner call without a word of it in the query: what
// operator classes and ranges name. In C, only a superuser can make them.
const CALLED_UNNAMED: &str = "SELECT DISTINCT p.proname::text, l.lanname::text FROM (
  SELECT a.amproc::pg_catalog.oid FROM pg_catalog.pg_amproc a WHERE a.oid >= 16384
  UNION ALL SELECT o.oprcode::pg_catalog.oid FROM pg_catalog.pg_amop a
   JOIN pg_catalog.pg_operator o ON o.oid = a.amopopr WHERE a.oid >= 16384
  UNION ALL SELECT x.f::pg_catalog.oid FROM pg_catalog.pg_range r
   CROSS JOIN LATERAL (VALUES (r.rngsubdiff), (r.rngcanonical)) x(f)) c(function)
 JOIN pg_catalog.pg_proc p ON p.oid = c.function
 JOIN pg_catalog.pg_language l ON l.oid = p.prolang
 WHERE l.lanname NOT IN ('c', 'internal')";

// relation, function
//
// The planner computes calls with constant arguments in what it loads of a relation: expressions of
// indexes, partition keys, checks and statistics.
const FOLDED: &str = "SELECT DISTINCT x.relation::text, p.proname::text FROM (
  SELECT COALESCE(i.indrelid, k.conrelid, s.stxrelid, t.partrelid) AS relation,
   COALESCE(o.oprcode::pg_catalog.oid, d.refobjid) AS function
  FROM pg_catalog.pg_depend d
  LEFT JOIN pg_catalog.pg_operator o ON o.oid = d.refobjid
   AND d.refclassid = 'pg_catalog.pg_operator'::pg_catalog.regclass
  LEFT JOIN pg_catalog.pg_index i ON i.indexrelid = d.objid
   AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
  LEFT JOIN pg_catalog.pg_partitioned_table t ON t.partrelid = d.objid
   AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
  LEFT JOIN pg_catalog.pg_constraint k ON k.oid = d.objid
   AND d.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass AND k.conrelid <> 0
  LEFT JOIN pg_catalog.pg_statistic_ext s ON s.oid = d.objid
   AND d.classid = 'pg_catalog.pg_statistic_ext'::pg_catalog.regclass
  WHERE d.refobjid >= 16384 AND d.refclassid IN ('pg_catalog.pg_proc'::pg_catalog.regclass,
   'pg_catalog.pg_operator'::pg_catalog.regclass)) x
 JOIN pg_catalog.pg_proc p ON p.oid = x.function
 JOIN pg_catalog.pg_language l ON l.oid = p.prolang
 WHERE x.relation IS NOT NULL AND l.lanname NOT IN ('c', 'internal')";

// relation, function
//
// What a write to a relation calls without a word of it in the statement: triggers, defaults, checks
// and rules.
const TOUCHED: &str = "SELECT DISTINCT x.relation::text, p.proname::text FROM (
  SELECT t.tgrelid AS relation, t.tgfoid AS function FROM pg_catalog.pg_trigger t
   WHERE NOT t.tgisinternal
  UNION ALL
  SELECT COALESCE(a.adrelid, k.conrelid, r.ev_class), d.refobjid
  FROM pg_catalog.pg_depend d
  LEFT JOIN pg_catalog.pg_attrdef a ON a.oid = d.objid
   AND d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass
  LEFT JOIN pg_catalog.pg_constraint k ON k.oid = d.objid
   AND d.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass AND k.conrelid <> 0
  LEFT JOIN pg_catalog.pg_rewrite r ON r.oid = d.objid
   AND d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass
  WHERE d.refobjid >= 16384 AND d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass) x
 JOIN pg_catalog.pg_proc p ON p.oid = x.function
 WHERE x.relation IS NOT NULL";
