/* In place of Sphinx's file of this name: to mark the words of a search, it asks the texts in pictures what they are not. */
const SPHINX_HIGHLIGHT_ENABLED = false;
