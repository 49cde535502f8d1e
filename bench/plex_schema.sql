-- The schema of a Plex library database (com.plexapp.plugins.library.db), rebuilt from published
-- column lists, for benchmarks and tests: not a dump of anybody's database.
--
-- Column lists after: cgnl/plex-postgresql schema/sqlite_schema.sql (commit 91a1402, Plex 1.42/1.43),
-- danrahn/MarkerEditorForPlex Test/TestHelpers.js, mutanthost/plex_schema plexschema.sql (2021),
-- pwsh/plex_api docs/PlexDatabaseLayout.md (Plex 1.43; 86 tables, 164 indexes, 8 triggers: here are
-- the tables that hold nearly all rows).
--
-- The blobs database has the same schema; of its tables only blobs, accounts, preferences (one row
-- each of the last two) and schema_migrations hold rows.
--
-- Statements naming icu_root, collating or spellfix1 need Plex's own build of SQLite;
-- bench/plexdatabase.py brings those about with a stock one.

CREATE TABLE schema_migrations(version varchar(255) NOT NULL, rollback_sql text DEFAULT NULL,
  optimize_on_rollback boolean DEFAULT NULL, min_version text DEFAULT NULL);
CREATE UNIQUE INDEX unique_schema_migrations ON schema_migrations(version);

CREATE TABLE library_sections(id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, library_id integer,
  name varchar(255), name_sort varchar(255) COLLATE NOCASE, section_type integer, language varchar(255),
  agent varchar(255), scanner varchar(255), user_thumb_url varchar(255), user_art_url varchar(255),
  user_theme_music_url varchar(255), public boolean, created_at dt_integer(8), updated_at dt_integer(8),
  scanned_at dt_integer(8), display_secondary_level boolean, user_fields varchar(255), query_xml text,
  query_type integer, uuid varchar(255), changed_at integer(8) DEFAULT 0, content_changed_at integer(8) DEFAULT '0',
  metadata_agent_provider_group_id integer);
CREATE INDEX index_library_sections_on_name_sort ON library_sections(name_sort COLLATE NOCASE);
CREATE INDEX index_library_sections_on_name ON library_sections(name);
CREATE INDEX index_library_sections_on_changed_at ON library_sections(changed_at);

CREATE TABLE section_locations(id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, library_section_id integer,
  root_path varchar(255), available boolean DEFAULT 't', scanned_at dt_integer(8), created_at dt_integer(8),
  updated_at dt_integer(8));

CREATE TABLE directories(id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, library_section_id integer,
  parent_directory_id integer, path varchar(255), created_at dt_integer(8), updated_at dt_integer(8),
  deleted_at dt_integer(8));
CREATE INDEX index_directories_on_path ON directories(path);
CREATE INDEX index_directories_on_deleted_at ON directories(deleted_at);
CREATE INDEX index_directories_on_parent_directory_id ON directories(parent_directory_id);

CREATE TABLE metadata_items(id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, library_section_id integer,
  parent_id integer, metadata_type integer, guid varchar(255), media_item_count integer, title varchar(255),
  title_sort varchar(255) COLLATE NOCASE, original_title varchar(255), studio varchar(255), rating float,
  rating_count integer, tagline varchar(255), summary text, trivia text, quotes text, content_rating varchar(255),
  content_rating_age integer, "index" integer, absolute_index integer, duration integer, user_thumb_url varchar(255),
  user_art_url varchar(255), user_banner_url varchar(255), user_music_url varchar(255), user_fields varchar(255),
  tags_genre varchar(255), tags_collection varchar(255), tags_director varchar(255), tags_writer varchar(255),
  tags_star varchar(255), originally_available_at dt_integer(8), available_at dt_integer(8), expires_at dt_integer(8),
  refreshed_at dt_integer(8), year integer, added_at dt_integer(8), created_at dt_integer(8), updated_at dt_integer(8),
  deleted_at dt_integer(8), tags_country varchar(255), extra_data varchar(255), hash varchar(255),
  audience_rating float, changed_at integer(8) DEFAULT 0, resources_changed_at integer(8) DEFAULT 0, remote integer,
  edition_title varchar(255), slug varchar(255), user_clear_logo_url varchar(255), is_adult integer,
  metadata_agent_provider_group_id integer);
CREATE INDEX index_metadata_items_on_library_section_id ON metadata_items(library_section_id);
CREATE INDEX index_metadata_items_on_parent_id ON metadata_items(parent_id);
CREATE INDEX index_metadata_items_on_title ON metadata_items(title);
CREATE INDEX index_metadata_items_on_title_sort ON metadata_items(title_sort);
CREATE INDEX index_metadata_items_on_guid ON metadata_items(guid);
CREATE INDEX index_metadata_items_on_metadata_type ON metadata_items(metadata_type);
CREATE INDEX index_metadata_items_on_deleted_at ON metadata_items(deleted_at);
CREATE INDEX index_metadata_items_on_hash ON metadata_items(hash);
CREATE INDEX index_metadata_items_on_added_at ON metadata_items(added_at);
CREATE INDEX index_metadata_items_on_library_section_id_and_metadata_type_and_added_at
  ON metadata_items(library_section_id, metadata_type, added_at);
-- The one index with a collation of Plex's own:
CREATE INDEX index_title_sort_icu ON metadata_items(title_sort COLLATE icu_root);

CREATE TABLE media_items(id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, library_section_id integer,
  section_location_id integer, metadata_item_id integer, type_id integer, width integer, height integer,
  size integer(8), duration integer, bitrate integer, container varchar(255), video_codec varchar(255),
  audio_codec varchar(255), display_aspect_ratio float, frames_per_second float, audio_channels integer,
  interlaced boolean, source varchar(255), hints varchar(255), display_offset integer, settings varchar(255),
  created_at dt_integer(8), updated_at dt_integer(8), optimized_for_streaming boolean, deleted_at dt_integer(8),
  media_analysis_version integer DEFAULT 0, sample_aspect_ratio float, extra_data varchar(255), proxy_type integer,
  channel_id integer, begins_at dt_integer(8), ends_at dt_integer(8), color_trc varchar(255));
CREATE INDEX index_media_items_on_library_section_id ON media_items(library_section_id);
CREATE INDEX index_media_items_on_metadata_item_id ON media_items(metadata_item_id);
CREATE INDEX index_media_items_on_deleted_at ON media_items(deleted_at);

CREATE TABLE media_parts(id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, media_item_id integer, directory_id integer,
  hash varchar(255), open_subtitle_hash varchar(255), file varchar(255), "index" integer, size integer(8),
  duration integer, created_at dt_integer(8), updated_at dt_integer(8), deleted_at dt_integer(8),
  extra_data varchar(255));
CREATE INDEX index_media_parts_on_directory_id ON media_parts(directory_id);
CREATE INDEX index_media_parts_on_media_item_id ON media_parts(media_item_id);
CREATE INDEX index_media_parts_on_hash ON media_parts(hash);
CREATE INDEX index_media_parts_on_file ON media_parts(file);
CREATE INDEX index_media_parts_on_deleted_at ON media_parts(deleted_at);
CREATE INDEX index_media_parts_on_size ON media_parts(size);

CREATE TABLE media_streams(id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, stream_type_id integer,
  media_item_id integer, url varchar(255), codec varchar(255), language varchar(255), created_at dt_integer(8),
  updated_at dt_integer(8), "index" integer, media_part_id integer, channels integer, bitrate integer,
  url_index integer, "default" boolean DEFAULT 0, forced boolean DEFAULT 0, extra_data varchar(255));
CREATE INDEX index_media_streams_on_media_part_id ON media_streams(media_part_id);
CREATE INDEX index_media_streams_on_media_item_id ON media_streams(media_item_id);

CREATE TABLE accounts(id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, name varchar(255), created_at dt_integer(8),
  updated_at dt_integer(8), default_audio_language varchar(255), default_subtitle_language varchar(255),
  auto_select_subtitle boolean DEFAULT 't', auto_select_audio boolean DEFAULT 't');

CREATE TABLE metadata_item_settings(id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, account_id integer,
  guid varchar(255), rating float, view_offset integer, view_count integer, last_viewed_at dt_integer(8),
  created_at dt_integer(8), updated_at dt_integer(8), skip_count integer DEFAULT 0,
  last_skipped_at dt_integer(8) DEFAULT NULL, changed_at integer(8) DEFAULT 0, extra_data varchar(255),
  last_rated_at dt_integer(8));
CREATE INDEX index_metadata_item_settings_on_account_id ON metadata_item_settings(account_id);
CREATE INDEX index_metadata_item_settings_on_guid ON metadata_item_settings(guid);
CREATE INDEX index_metadata_item_settings_on_view_count ON metadata_item_settings(view_count);

CREATE TABLE metadata_item_views(id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, account_id integer,
  guid varchar(255), metadata_type integer, library_section_id integer, grandparent_title varchar(255),
  parent_index integer, parent_title varchar(255), "index" integer, title varchar(255), thumb_url varchar(255),
  viewed_at dt_integer(8), grandparent_guid varchar(255), originally_available_at dt_integer(8), device_id integer,
  view_type integer DEFAULT 0);
CREATE INDEX index_metadata_item_views_on_guid ON metadata_item_views(guid);

CREATE TABLE tags(id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, metadata_item_id integer,
  tag varchar(255) COLLATE NOCASE, tag_type integer, user_thumb_url varchar(255), user_art_url varchar(255),
  user_music_url varchar(255), created_at dt_integer(8), updated_at dt_integer(8), tag_value integer,
  extra_data varchar(255), key varchar(255), parent_id integer);
CREATE INDEX index_tags_on_tag ON tags(tag);
CREATE INDEX index_tags_on_tag_type_and_tag ON tags(tag_type, tag);

CREATE TABLE taggings(id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, metadata_item_id integer, tag_id integer,
  "index" integer, text varchar(255), time_offset integer, end_time_offset integer, thumb_url varchar(255),
  created_at dt_integer(8), extra_data varchar(255));
CREATE INDEX index_taggings_on_metadata_item_id ON taggings(metadata_item_id);
CREATE INDEX index_taggings_on_tag_id ON taggings(tag_id);

CREATE TABLE preferences(id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, name varchar(255), value varchar(255));

CREATE TABLE blobs(id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, blob blob, linked_type varchar(255),
  linked_id integer, linked_guid varchar(255), created_at dt_integer(8), blob_type integer);
CREATE INDEX index_blobs_on_linked_type ON blobs(linked_type);
CREATE UNIQUE INDEX index_blobs_on_linked_type_linked_id_and_blob_type ON blobs(linked_type, linked_id, blob_type);
CREATE UNIQUE INDEX index_blobs_on_linked_type_linked_guid_and_blob_type ON blobs(linked_type, linked_guid, blob_type);

-- Virtual tables
CREATE VIRTUAL TABLE locations USING rtree(id integer, lat_min float, lat_max float, lon_min float, lon_max float);
CREATE VIRTUAL TABLE fts4_metadata_titles USING fts4(content='metadata_items', title, title_sort, original_title);
CREATE VIRTUAL TABLE fts4_tag_titles USING fts4(content='tags', tag);
-- With a tokenizer of Plex's own (a variant without content= has been seen on 1.43):
CREATE VIRTUAL TABLE fts4_metadata_titles_icu USING fts4(content='metadata_items', title, title_sort, original_title, tokenize=collating 'root@colStrength=primary;colAlternate=shifted');
CREATE VIRTUAL TABLE fts4_tag_titles_icu USING fts4(content='tags', tag, tokenize=collating 'root@colStrength=primary;colAlternate=shifted');
-- Of a module built into Plex's SQLite; each has a shadow table *_vocab, normally empty:
CREATE VIRTUAL TABLE spellfix_metadata_titles USING spellfix1;
CREATE TABLE "spellfix_metadata_titles_vocab"(
  id INTEGER PRIMARY KEY,
  rank INT,
  langid INT,
  word TEXT,
  k1 TEXT,
  k2 TEXT
);
CREATE INDEX "spellfix_metadata_titles_vocab_index_langid_k2" ON "spellfix_metadata_titles_vocab"(langid,k2);
CREATE VIRTUAL TABLE spellfix_tag_titles USING spellfix1;
CREATE TABLE "spellfix_tag_titles_vocab"(
  id INTEGER PRIMARY KEY,
  rank INT,
  langid INT,
  word TEXT,
  k1 TEXT,
  k2 TEXT
);
CREATE INDEX "spellfix_tag_titles_vocab_index_langid_k2" ON "spellfix_tag_titles_vocab"(langid,k2);

-- Triggers: {metadata, tag} x {before_update, before_delete, after_update, after_insert}, all on the
-- _icu tables. Newer servers seem to fire only on UPDATE OF title, title_sort, original_title. The
-- bodies of two of the metadata ones are published, the others follow by symmetry.
CREATE TRIGGER fts4_metadata_titles_before_update_icu BEFORE UPDATE ON metadata_items
  BEGIN DELETE FROM fts4_metadata_titles_icu WHERE docid=old.rowid; END;
CREATE TRIGGER fts4_metadata_titles_before_delete_icu BEFORE DELETE ON metadata_items
  BEGIN DELETE FROM fts4_metadata_titles_icu WHERE docid=old.rowid; END;
CREATE TRIGGER fts4_metadata_titles_after_update_icu AFTER UPDATE ON metadata_items
  BEGIN INSERT INTO fts4_metadata_titles_icu(docid,title,title_sort,original_title) VALUES(new.rowid,new.title,new.title_sort,new.original_title); END;
CREATE TRIGGER fts4_metadata_titles_after_insert_icu AFTER INSERT ON metadata_items
  BEGIN INSERT INTO fts4_metadata_titles_icu(docid,title,title_sort,original_title) VALUES(new.rowid,new.title,new.title_sort,new.original_title); END;
CREATE TRIGGER fts4_tag_titles_before_update_icu BEFORE UPDATE ON tags WHEN old.tag_type IN (0,1,2,4,6,207,400)
  BEGIN DELETE FROM fts4_tag_titles_icu WHERE docid=old.rowid; END;
CREATE TRIGGER fts4_tag_titles_before_delete_icu BEFORE DELETE ON tags WHEN old.tag_type IN (0,1,2,4,6,207,400)
  BEGIN DELETE FROM fts4_tag_titles_icu WHERE docid=old.rowid; END;
CREATE TRIGGER fts4_tag_titles_after_update_icu AFTER UPDATE ON tags WHEN new.tag_type IN (0,1,2,4,6,207,400)
  BEGIN INSERT INTO fts4_tag_titles_icu(docid,tag) VALUES(new.rowid,new.tag); END;
CREATE TRIGGER fts4_tag_titles_after_insert_icu AFTER INSERT ON tags WHEN new.tag_type IN (0,1,2,4,6,207,400)
  BEGIN INSERT INTO fts4_tag_titles_icu(docid,tag) VALUES(new.rowid,new.tag); END;
