-- The extension as the catalogs have it: one row for each property of each object, (object, property, value), in words
-- and never in oids, so that two databases can be compared. What no row is made for is reported as `not described`.
WITH RECURSIVE found AS (
    SELECT d.classid, d.objid
      FROM pg_depend AS d JOIN pg_extension AS e ON e.oid = d.refobjid
     WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' AND e.extname = 'tidemark'
    UNION
    -- What hangs on the members: indexes, rules, triggers, policies, defaults, constraints, row and array types, toast
    -- tables, sequences, operators of classes.
    SELECT d.classid, d.objid
      FROM found AS m JOIN pg_depend AS d ON d.refclassid = m.classid AND d.refobjid = m.objid
     WHERE d.deptype IN ('a', 'i', 'I', 'P', 'S') AND d.classid <> 'pg_extension'::regclass
), member AS (
    -- Toast tables and the triggers of foreign keys have oids in their names and say nothing of their own.
    SELECT * FROM found
     WHERE coalesce((pg_identify_object(classid, objid, 0)).schema, '') <> 'pg_toast'
       AND NOT EXISTS (SELECT FROM pg_trigger AS t
                        WHERE classid = 'pg_trigger'::regclass AND t.oid = objid AND t.tgisinternal)
), class AS (
    SELECT c.* FROM pg_class AS c JOIN member AS m ON m.classid = 'pg_class'::regclass AND m.objid = c.oid
), proc AS (
    SELECT p.* FROM pg_proc AS p JOIN member AS m ON m.classid = 'pg_proc'::regclass AND m.objid = p.oid
), type AS (
    SELECT t.* FROM pg_type AS t JOIN member AS m ON m.classid = 'pg_type'::regclass AND m.objid = t.oid
), acl (classid, objid, objsubid, kind, privileges) AS (
    SELECT 'pg_proc'::regclass, oid, 0, 'f'::"char", proacl FROM proc
    UNION ALL
    SELECT 'pg_class'::regclass, oid, 0, CASE relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", relacl FROM class
    UNION ALL
    SELECT 'pg_class'::regclass, a.attrelid, a.attnum, 'c', a.attacl
      FROM pg_attribute AS a JOIN class AS c ON c.oid = a.attrelid
    UNION ALL SELECT 'pg_type'::regclass, oid, 0, 'T', typacl FROM type
    UNION ALL
    SELECT 'pg_namespace'::regclass, n.oid, 0, 'n', n.nspacl
      FROM pg_namespace AS n JOIN member AS m ON m.objid = n.oid AND m.classid = 'pg_namespace'::regclass
), property (classid, objid, objsubid, property, value) AS (
    -- That it is there, and what it depends on among ours.
    SELECT m.classid, m.objid, 0, 'exists', 'yes' FROM member AS m
    UNION ALL
    SELECT m.classid, m.objid, d.objsubid, format('depends on (%s)', d.deptype),
           pg_describe_object(d.refclassid, d.refobjid, d.refobjsubid)
      FROM member AS m JOIN pg_depend AS d ON d.classid = m.classid AND d.objid = m.objid

    -- Comments, also on columns.
    UNION ALL
    SELECT m.classid, m.objid, d.objsubid, 'comment', d.description
      FROM member AS m JOIN pg_description AS d ON d.classoid = m.classid AND d.objoid = m.objid

    -- Rights as they are, and as a dump takes for granted.
    UNION ALL
    SELECT a.classid, a.objid, a.objsubid, 'rights',
           coalesce((SELECT string_agg(format('%s: %s%s by %s',
                                              CASE x.grantee WHEN 0 THEN 'public' ELSE x.grantee::regrole::text END,
                                              x.privilege_type,
                                              CASE WHEN x.is_grantable THEN ' with grant option' ELSE '' END,
                                              x.grantor::regrole), '; '
                                       ORDER BY x.grantee::regrole::text, x.privilege_type)
                       FROM aclexplode(a.privileges) AS x),
                    CASE WHEN a.privileges IS NULL THEN 'default' ELSE 'none' END)
      FROM acl AS a
    UNION ALL
    SELECT m.classid, m.objid, i.objsubid, format('initial rights (%s)', i.privtype),
           (SELECT string_agg(format('%s: %s', CASE x.grantee WHEN 0 THEN 'public' ELSE x.grantee::regrole::text END,
                                     x.privilege_type), '; '
                              ORDER BY x.grantee::regrole::text, x.privilege_type)
              FROM aclexplode(i.initprivs) AS x)
      FROM member AS m JOIN pg_init_privs AS i ON i.classoid = m.classid AND i.objoid = m.objid

    -- Functions, procedures and aggregates.
    UNION ALL SELECT 'pg_proc'::regclass, oid, 0, 'definition', pg_get_functiondef(oid) FROM proc WHERE prokind <> 'a'
    UNION ALL
    SELECT 'pg_proc'::regclass, p.oid, 0, x.key, x.value
      FROM proc AS p
     CROSS JOIN LATERAL jsonb_each_text(to_jsonb(p)
               - '{oid,pronamespace,proowner,prolang,provariadic,prosupport,prorettype,proargtypes,proallargtypes,'
                 'protrftypes,proacl,prosqlbody,proargdefaults}'::text[]) AS x
    UNION ALL
    SELECT 'pg_proc'::regclass, oid, 0, 'signature',
           format('%s -> %s language %s owner %s support %s variadic %s',
                  pg_get_function_arguments(oid), pg_get_function_result(oid),
                  (SELECT lanname FROM pg_language WHERE pg_language.oid = prolang), proowner::regrole, prosupport,
                  provariadic::regtype)
      FROM proc
    UNION ALL SELECT 'pg_proc'::regclass, oid, 0, 'sql body', pg_get_function_sqlbody(oid) FROM proc
    UNION ALL
    SELECT 'pg_proc'::regclass, p.oid, 0, x.key, x.value
      FROM pg_aggregate AS a JOIN proc AS p ON p.oid = a.aggfnoid
     CROSS JOIN LATERAL jsonb_each_text(to_jsonb(a) - '{aggfnoid,aggsortop,aggtranstype,aggmtranstype}'::text[]) AS x
    UNION ALL
    SELECT 'pg_proc'::regclass, p.oid, 0, 'aggregate types',
           format('%s %s %s', a.aggtranstype::regtype, a.aggmtranstype::regtype, a.aggsortop::regoperator)
      FROM pg_aggregate AS a JOIN proc AS p ON p.oid = a.aggfnoid

    -- Tables, views, sequences, composite types and indexes.
    UNION ALL
    SELECT 'pg_class'::regclass, c.oid, 0, x.key, x.value
      FROM class AS c
     CROSS JOIN LATERAL jsonb_each_text(to_jsonb(c)
               - '{oid,relnamespace,reltype,reloftype,relowner,relam,relfilenode,reltablespace,relpages,reltuples,'
                 'relallvisible,relallfrozen,reltoastrelid,relfrozenxid,relminmxid,relacl,relrewrite,relpartbound,'
                 'relnatts,relhasindex,relhasrules,relhastriggers,relhassubclass}'::text[]) AS x
    UNION ALL
    SELECT 'pg_class'::regclass, c.oid, 0, 'belongs',
           format('owner %s, access method %s, of type %s, partition key %s', c.relowner::regrole,
           (SELECT amname FROM pg_am WHERE pg_am.oid = c.relam), c.reloftype::regtype, pg_get_partkeydef(c.oid))
      FROM class AS c
    UNION ALL SELECT 'pg_class'::regclass, oid, 0, 'view', pg_get_viewdef(oid) FROM class WHERE relkind IN ('v', 'm')
    UNION ALL
    SELECT 'pg_class'::regclass, i.indexrelid, 0, 'index', format('%s %s', pg_get_indexdef(i.indexrelid),
           (to_jsonb(i)
               - '{indexrelid,indrelid,indcollation,indclass,indkey,indexprs,indpred,indcheckxmin}'::text[])::text)
      FROM pg_index AS i JOIN class AS c ON c.oid = i.indexrelid
    UNION ALL
    SELECT 'pg_class'::regclass, s.seqrelid, 0, 'sequence',
           format('%s %s', s.seqtypid::regtype, (to_jsonb(s) - '{seqrelid,seqtypid}'::text[])::text)
      FROM pg_sequence AS s JOIN class AS c ON c.oid = s.seqrelid
    UNION ALL
    SELECT 'pg_class'::regclass, c.oid, 0, 'inherits', string_agg(i.inhparent::regclass::text, ', ' ORDER BY i.inhseqno)
      FROM pg_inherits AS i JOIN class AS c ON c.oid = i.inhrelid GROUP BY c.oid
    UNION ALL
    SELECT 'pg_class'::regclass, a.attrelid, a.attnum, 'column', format('%s. %s %s collation %s options %s %s',
           row_number() OVER (PARTITION BY a.attrelid ORDER BY a.attnum), a.attname,
           format_type(a.atttypid, a.atttypmod), a.attcollation::regcollation,
           -- Newer servers keep a counter of their own there.
           (SELECT string_agg(o, ', ') FROM unnest(a.attoptions) AS o WHERE o NOT LIKE 'pg_attver=%'),
           (to_jsonb(a)
               - '{attrelid,attname,attoptions,atttypid,atttypmod,attcollation,attacl,attnum,attcacheoff,atthasmissing,'
                 'attmissingval}'::text[])::text)
      FROM pg_attribute AS a JOIN class AS c ON c.oid = a.attrelid WHERE a.attnum > 0 AND NOT a.attisdropped
    UNION ALL
    SELECT 'pg_class'::regclass, d.adrelid, d.adnum, 'default', pg_get_expr(d.adbin, d.adrelid)
      FROM pg_attrdef AS d JOIN class AS c ON c.oid = d.adrelid
    UNION ALL
    SELECT 'pg_constraint'::regclass, k.oid, 0, 'constraint',
           format('%s %s deferrable %s deferred %s validated %s local %s inherited %s',
                  k.conname, pg_get_constraintdef(k.oid), k.condeferrable, k.condeferred, k.convalidated, k.conislocal,
                  k.connoinherit)
      FROM pg_constraint AS k JOIN member AS m ON m.classid = 'pg_constraint'::regclass AND m.objid = k.oid
    UNION ALL
    SELECT 'pg_trigger'::regclass, t.oid, 0, 'trigger', format('%s enabled %s', pg_get_triggerdef(t.oid), t.tgenabled)
      FROM pg_trigger AS t JOIN member AS m ON m.classid = 'pg_trigger'::regclass AND m.objid = t.oid
     WHERE NOT t.tgisinternal
    UNION ALL
    SELECT 'pg_rewrite'::regclass, r.oid, 0, 'rule', format('%s enabled %s', pg_get_ruledef(r.oid), r.ev_enabled)
      FROM pg_rewrite AS r JOIN member AS m ON m.classid = 'pg_rewrite'::regclass AND m.objid = r.oid
    UNION ALL
    SELECT 'pg_policy'::regclass, p.oid, 0, 'policy',
           format('%s %s %s to %s using %s check %s', p.polname, p.polcmd, p.polpermissive,
                  (SELECT string_agg(CASE o WHEN 0 THEN 'public' ELSE o::regrole::text END, ', ' ORDER BY o)
                     FROM unnest(p.polroles) AS o),
                  pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid))
      FROM pg_policy AS p JOIN member AS m ON m.classid = 'pg_policy'::regclass AND m.objid = p.oid

    -- Types, casts and operators.
    UNION ALL
    SELECT 'pg_type'::regclass, t.oid, 0, x.key, x.value
      FROM type AS t
     CROSS JOIN LATERAL jsonb_each_text(to_jsonb(t)
               - '{oid,typnamespace,typowner,typrelid,typelem,typarray,typbasetype,typcollation,typacl,'
                 'typdefaultbin}'::text[]) AS x
    UNION ALL
    SELECT 'pg_type'::regclass, t.oid, 0, 'belongs',
           format('owner %s, row of %s, element %s, array %s, base %s, collation %s', t.typowner::regrole,
                  t.typrelid::regclass, t.typelem::regtype, t.typarray::regtype,
                  format_type(t.typbasetype, t.typtypmod), t.typcollation::regcollation)
      FROM type AS t
    UNION ALL
    SELECT 'pg_type'::regclass, e.enumtypid, 0, 'labels', string_agg(e.enumlabel, ', ' ORDER BY e.enumsortorder)
      FROM pg_enum AS e JOIN type AS t ON t.oid = e.enumtypid GROUP BY e.enumtypid
    UNION ALL
    SELECT 'pg_cast'::regclass, c.oid, 0, 'cast',
           format('%s -> %s by %s, %s %s', c.castsource::regtype, c.casttarget::regtype, c.castfunc::regprocedure,
                  c.castcontext, c.castmethod)
      FROM pg_cast AS c JOIN member AS m ON m.classid = 'pg_cast'::regclass AND m.objid = c.oid
    UNION ALL
    SELECT 'pg_operator'::regclass, o.oid, 0, 'operator',
           format('%s -> %s owner %s by %s, commutator %s, negator %s, merges %s, hashes %s, restrict %s, join %s',
                  o.oid::regoperator, o.oprresult::regtype, o.oprowner::regrole, o.oprcode, o.oprcom::regoperator,
                  o.oprnegate::regoperator, o.oprcanmerge, o.oprcanhash, o.oprrest, o.oprjoin)
      FROM pg_operator AS o JOIN member AS m ON m.classid = 'pg_operator'::regclass AND m.objid = o.oid
    UNION ALL
    SELECT 'pg_opfamily'::regclass, f.oid, 0, 'owner', f.opfowner::regrole::text
      FROM pg_opfamily AS f JOIN member AS m ON m.classid = 'pg_opfamily'::regclass AND m.objid = f.oid
    UNION ALL
    SELECT 'pg_opclass'::regclass, c.oid, 0, 'operator class', format('of %s, key %s, default %s, owner %s',
           c.opcintype::regtype, c.opckeytype::regtype, c.opcdefault, c.opcowner::regrole)
      FROM pg_opclass AS c JOIN member AS m ON m.classid = 'pg_opclass'::regclass AND m.objid = c.oid
    UNION ALL
    SELECT 'pg_amop'::regclass, o.oid, 0, 'strategy', format('%s %s', o.amopstrategy, o.amopopr::regoperator)
      FROM pg_amop AS o JOIN member AS m ON m.classid = 'pg_amop'::regclass AND m.objid = o.oid
    UNION ALL
    SELECT 'pg_amproc'::regclass, p.oid, 0, 'support', format('%s %s', p.amprocnum, p.amproc::regprocedure)
      FROM pg_amproc AS p JOIN member AS m ON m.classid = 'pg_amproc'::regclass AND m.objid = p.oid
    UNION ALL
    SELECT 'pg_namespace'::regclass, n.oid, 0, 'owner', n.nspowner::regrole::text
      FROM pg_namespace AS n JOIN member AS m ON m.classid = 'pg_namespace'::regclass AND m.objid = n.oid

    -- The extension itself, and what pg_dump takes along of its tables.
    UNION ALL
    SELECT 'pg_extension'::regclass, e.oid, 0, 'dumped: ' || t.table_oid::regclass, coalesce(e.extcondition[t.n], '')
      FROM pg_extension AS e CROSS JOIN LATERAL unnest(e.extconfig) WITH ORDINALITY AS t (table_oid, n)
     WHERE e.extname = 'tidemark'
    UNION ALL
    SELECT 'pg_extension'::regclass, e.oid, 0, 'extension',
           format('owner %s, schema %s, relocatable %s', e.extowner::regrole, e.extnamespace::regnamespace,
                  e.extrelocatable)
      FROM pg_extension AS e WHERE e.extname = 'tidemark'
    UNION ALL
    SELECT 'pg_extension'::regclass, e.oid, d.objsubid, 'comment', d.description
      FROM pg_extension AS e
      JOIN pg_description AS d ON d.objoid = e.oid AND d.classoid = 'pg_extension'::regclass
     WHERE e.extname = 'tidemark'

    -- A kind of object that nothing above describes must not go unnoticed.
    UNION ALL
    SELECT m.classid, m.objid, 0, 'not described', pg_describe_object(m.classid, m.objid, 0) FROM member AS m
     WHERE m.classid NOT IN ('pg_proc'::regclass, 'pg_class'::regclass, 'pg_type'::regclass, 'pg_cast'::regclass,
           'pg_operator'::regclass, 'pg_namespace'::regclass, 'pg_constraint'::regclass, 'pg_trigger'::regclass,
           'pg_rewrite'::regclass, 'pg_policy'::regclass, 'pg_attrdef'::regclass,
           'pg_opfamily'::regclass, 'pg_opclass'::regclass, 'pg_amop'::regclass, 'pg_amproc'::regclass)
)
SELECT (pg_identify_object(classid, objid, objsubid)).type || ' '
           || (pg_identify_object(classid, objid, objsubid)).identity AS object, property,
       coalesce(value, 'null') AS value
  FROM property
 ORDER BY 1, 2, 3
