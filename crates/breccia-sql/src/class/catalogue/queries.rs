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
    OPERATOR_CLASSES,
];

// name, built in, language, volatility, source, keeps settings, defaults, extension, field-like
const FUNCTIONS: &str = "SELECT p.proname::text,
 (n.nspname = 'pg_catalog' AND p.oid < 16384)::text,
 l.lanname::text,
 p.provolatile::text,
 CASE WHEN l.lanname IN ('sql', 'plpgsql') THEN p.prosrc END,
 (NOT EXISTS (SELECT 1 FROM pg_catalog.unnest(p.proconfig) AS c(setting)
   WHERE c.setting NOT LIKE 'search\\_path=%'))::text,
 pg_catalog.pg_get_expr(p.proargdefaults, 0)::text,
 (SELECT e.extname::text FROM pg_catalog.pg_depend d
   JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid
   WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.objid = p.oid
   AND d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND d.deptype = 'e' LIMIT 1),
 (p.pronargs >= 1 AND p.pronargs - p.pronargdefaults <= 1 AND EXISTS
   (SELECT 1 FROM pg_catalog.pg_type t
   WHERE t.oid = p.proargtypes[0] AND t.typtype IN ('c', 'p', 'd')))::text
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
const OPERATORS: &str = "SELECT DISTINCT o.oprname::text,
 (n.nspname = 'pg_catalog' AND o.oid < 16384)::text,
 CASE WHEN n.nspname = 'pg_catalog' AND o.oid < 16384 THEN NULL ELSE p.proname::text END
 FROM pg_catalog.pg_operator o
 JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace
 LEFT JOIN pg_catalog.pg_proc p ON p.oid = o.oprcode";

// name, built in, kind, input function, safe by its parts
const TYPES: &str = "SELECT t.typname::text,
 (n.nspname = 'pg_catalog' AND t.oid < 16384)::text,
 t.typtype::text,
 (SELECT p.proname::text FROM pg_catalog.pg_proc p WHERE p.oid = t.typinput),
 CASE t.typtype
  WHEN 'd' THEN NOT EXISTS (SELECT 1 FROM pg_catalog.pg_constraint k
    WHERE k.contypid = t.oid AND k.contype = 'c')
   AND EXISTS (SELECT 1 FROM pg_catalog.pg_type b
    WHERE b.oid = t.typbasetype AND b.oid < 16384 AND b.typtype = 'b')
  WHEN 'c' THEN NOT EXISTS (SELECT 1 FROM pg_catalog.pg_attribute a
    WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped AND a.atttypid >= 16384)
  ELSE t.typtype = 'e' END::text
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
const OPERATOR_CLASSES: &str = "SELECT DISTINCT p.proname::text, l.lanname::text
 FROM pg_catalog.pg_amproc a
 JOIN pg_catalog.pg_proc p ON p.oid = a.amproc
 JOIN pg_catalog.pg_language l ON l.oid = p.prolang
 WHERE a.oid >= 16384 AND l.lanname NOT IN ('c', 'internal')";
