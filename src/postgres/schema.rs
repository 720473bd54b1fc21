//! The tables that the query builder is used on.
//!
//! Written by hand: of the users' tables it could say no more than what the statements name, and
//! `diesel print-schema` would bring the columns of whatever database it is run on.

diesel::table! {
    /// Which index the stamps of a kind of documents speak of, and of which database.
    etl.state (kind) {
        /// The table whose rows the documents are made of.
        kind -> Text,
        /// NULL before `etl init-es` is done.
        index_name -> Nullable<Text>,
        /// The engine's own.
        index_uuid -> Nullable<Text>,
        /// The setting.
        index_prefix -> Nullable<Text>,
        /// The engine's own.
        cluster_uuid -> Nullable<Text>,
        /// PostgreSQL's own.
        system_identifier -> Nullable<Text>,
        /// PostgreSQL's own.
        timeline -> Nullable<Text>,
        /// PostgreSQL's own.
        catalogue_oid -> Nullable<Text>,
        /// What `etl init-es --mapping` was given.
        mapping -> Nullable<Text>,
        /// What the index was made with (JSON).
        settings -> Nullable<Text>,
        /// It is filled for the first time.
        is_loading -> Bool,
        /// The index that was live before a rebuild, until it is deleted.
        former_index -> Nullable<Text>,
    }
}

diesel::table! {
    /// The term of the leader. One row.
    etl.term (only_row) {
        /// Always true.
        only_row -> Bool,
        /// Moved by whoever takes the lead or resets.
        epoch -> Int8,
    }
}

diesel::table! {
    /// The applied migrations, kept by Diesel.
    etl.__diesel_schema_migrations (version) {
        /// The digits of the migration's name.
        version -> Text,
    }
}
