-- Where Hairpin finds users in a file of SQLite:
--
--     sqlite3 users.db < sqlite.sql
--
-- The first tables are those of coturn: a database that coturn has made is read as it is, and turnadmin goes on writing
-- it. What is there already stays.

-- Users, by the key that turnadmin makes of the password: MD5 of name:realm:password in hexadecimal digits.
create table if not exists turnusers_lt (
    realm varchar(127) default '',
    name varchar(512),
    hmackey char(128),
    primary key (realm, name)
);

-- Secrets that credentials with an expiry are made with. Several may be valid at once.
create table if not exists turn_secret (
    realm varchar(127) default '',
    value varchar(256),
    primary key (realm, value)
);

-- Keys of access tokens (RFC 7635): ikm_key in base64, as_rs_alg A256GCM or A128GCM; valid for `lifetime` seconds from
-- `timestamp` (seconds since the Unix epoch), or for ever if the lifetime is 0.
create table if not exists oauth_key (
    kid varchar(128),
    ikm_key varchar(256),
    timestamp bigint default 0,
    lifetime integer default 0,
    as_rs_alg varchar(64) default '',
    realm varchar(127) default '',
    primary key (kid)
);

-- What coturn does not know of a user. Its password may be here, in turnusers_lt, or in both; a user of a secret has a row
-- here by the name behind the expiry.
create table if not exists hairpin_user (
    realm varchar(127) not null default '',
    name varchar(512) not null,
    -- SHA-256 of name:realm:password in hexadecimal digits, for clients that choose this algorithm.
    sha256 varchar(64),
    -- Relayed addresses that are kept for this user, as IP:PORT with commas between them.
    relayed_addresses text,
    -- How many allocations it may have; none: as many as others.
    allocations integer,
    -- SHA-256 of name:realm in hexadecimal digits, for clients that do not tell their name. Without it, it is computed for
    -- all users of turnusers_lt when a client asks, which takes long where there are many.
    userhash varchar(64),
    primary key (realm, name)
);
create unique index if not exists hairpin_user_hash on hairpin_user (realm, userhash);
