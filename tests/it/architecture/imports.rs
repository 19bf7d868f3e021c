//! What a file imports, read from its syntax.

use super::Module;
use proc_macro2::{TokenStream, TokenTree};
use std::collections::{BTreeMap, BTreeSet};
use syn::visit::{self, Visit};

/// What a file imports and defines.
pub struct Imports {
    /// Paths from the crate's root.
    paths: BTreeSet<Vec<String>>,
    /// What it imports under a name, which others may then import from it: `pub use scan::Scan`.
    named: BTreeMap<String, Vec<String>>,
}

impl Imports {
    /// Reads a file, but for its tests.
    pub fn of(text: &str, module: &Module, modules: &BTreeSet<Module>) -> Self {
        let mut reader = Reader { module, modules, found: Self { paths: BTreeSet::new(), named: BTreeMap::new() } };
        reader.visit_file(&syn::parse_file(text).unwrap());
        reader.found
    }

    /// The modules that define what is imported, without this one.
    pub fn resolve(&self, modules: &BTreeMap<Module, Self>) -> BTreeSet<Module> {
        self.paths
            .iter()
            .filter_map(|path| defined_in(path, modules))
            .filter(|module| !std::ptr::eq(&raw const modules[module], self))
            .collect()
    }
}

/// The module that defines what a path names; `None` outside the crate.
fn defined_in(path: &[String], modules: &BTreeMap<Module, Imports>) -> Option<Module> {
    let (depth, module) =
        (1..=path.len()).rev().find_map(|depth| modules.get_key_value(&path[..depth]).map(|(module, _)| (depth, module)))?;
    let named = path.get(depth).and_then(|name| modules[module].named.get(name));
    match named {
        Some(further) if *further != path[..=depth] => defined_in(further, modules),
        _ => Some(module.clone()),
    }
}

struct Reader<'a> {
    module: &'a Module,
    modules: &'a BTreeSet<Module>,
    found: Imports,
}

impl Reader<'_> {
    /// A path as the file writes it, from the crate's root; `None` where it leads out of the crate.
    fn absolute(&self, path: &[String]) -> Option<Vec<String>> {
        let own: &[String] = if self.module.len() == 1 && matches!(self.module[0].as_str(), "lib" | "main") { &[] } else { self.module };
        match path.first()?.as_str() {
            "crate" => Some(path[1..].to_vec()),
            "self" => Some([own, &path[1..]].concat()),
            "super" => {
                let ups = path.iter().take_while(|part| *part == "super").count();
                Some([&own[..own.len().checked_sub(ups)?], &path[ups..]].concat())
            }
            child => self.modules.contains(&[own, &[child.to_owned()]].concat()).then(|| [own, path].concat()),
        }
    }

    fn import(&mut self, path: &[String]) {
        if let Some(path) = self.absolute(path).filter(|path| !path.is_empty()) {
            self.found.paths.insert(path);
        }
    }

    fn tree(&mut self, tree: &syn::UseTree, prefix: &[String]) {
        let join = |ident: &syn::Ident| [prefix, &[ident.to_string()]].concat();
        let (path, name) = match tree {
            syn::UseTree::Path(path) => return self.tree(&path.tree, &join(&path.ident)),
            syn::UseTree::Group(group) => return group.items.iter().for_each(|tree| self.tree(tree, prefix)),
            syn::UseTree::Glob(_) => (prefix.to_vec(), None),
            syn::UseTree::Name(name) if name.ident == "self" => (prefix.to_vec(), prefix.last().cloned()),
            syn::UseTree::Name(name) => (join(&name.ident), Some(name.ident.to_string())),
            syn::UseTree::Rename(rename) => (join(&rename.ident), Some(rename.rename.to_string())),
        };
        self.import(&path);
        if let (Some(path), Some(name)) = (self.absolute(&path), name) {
            self.found.named.insert(name, path);
        }
    }

    /// The paths in a macro's arguments: an identifier, `::`, and so on.
    fn tokens(&mut self, tokens: TokenStream) {
        let (mut path, mut colons) = (Vec::new(), 0);
        for token in tokens {
            match token {
                // Where an item may be used imports nothing: `pub(in crate::config)`.
                TokenTree::Group(_) if path == ["pub"] => path.clear(),
                TokenTree::Ident(ident) if colons == 2 || path.is_empty() => path.push(ident.to_string()),
                TokenTree::Punct(punct) if punct.as_char() == ':' => {
                    colons += 1;
                    continue;
                }
                other => {
                    self.path(&path);
                    path = if let TokenTree::Ident(ident) = &other { vec![ident.to_string()] } else { Vec::new() };
                    if let TokenTree::Group(group) = other {
                        self.tokens(group.stream());
                    }
                }
            }
            colons = 0;
        }
        self.path(&path);
    }

    fn path(&mut self, path: &[String]) {
        if path.len() > 1 {
            self.import(path);
        }
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        let attributes = match item {
            syn::Item::Mod(item) => &item.attrs,
            syn::Item::Fn(item) => &item.attrs,
            syn::Item::Use(item) => &item.attrs,
            syn::Item::Impl(item) => &item.attrs,
            _ => return visit::visit_item(self, item),
        };
        let is_test = attributes
            .iter()
            .any(|attribute| attribute.path().is_ident("cfg") && attribute.parse_args::<syn::Ident>().is_ok_and(|cfg| cfg == "test"));
        if !is_test {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.tree(&item.tree, &[]);
    }

    /// `pub(in crate::x)` imports nothing.
    fn visit_visibility(&mut self, _visibility: &'ast syn::Visibility) {}

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let parts: Vec<_> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.path(&parts);
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, item: &'ast syn::Macro) {
        self.tokens(item.tokens.clone());
        visit::visit_macro(self, item);
    }
}
